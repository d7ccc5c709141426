//! The straight line through samples.

/// By least squares: seconds and values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    slope: f64,
    /// The standard error of the slope.
    error: f64,
    mean: f64,
    length: f64,
}

/// How many standard errors a slope may be off.
const CONFIDENCE: f64 = 3.0;
/// How long values that follow one another are alike, in samples: those of one pod's life are no news.
const ALIKE: f64 = 4.0;

impl Line {
    /// Through at least three samples, else flat.
    pub fn through(samples: &[(f64, f64)]) -> Self {
        let count = samples.len() as f64;
        if samples.len() < 3 {
            let mean = samples.iter().map(|(_, value)| value).sum::<f64>() / count.max(1.0);
            return Self { mean, ..Self::default() };
        }
        let mean_of = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
        let (middle, mean) = (mean_of(|sample| sample.0), mean_of(|sample| sample.1));
        let spread: f64 = samples.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        let slope =
            samples.iter().map(|(at, value)| (at - middle) * (value - mean)).sum::<f64>() / spread;
        let rest: f64 =
            samples.iter().map(|(at, value)| (value - mean - slope * (at - middle)).powi(2)).sum();
        let error = (rest * ALIKE / (count - 2.0) / spread).sqrt();
        let length = samples[samples.len() - 1].0 - samples[0].0;
        Self { slope, error, mean, length }
    }

    pub fn per_second(&self) -> f64 {
        self.slope
    }

    pub fn at_start(&self) -> f64 {
        self.mean - self.slope * self.length / 2.0
    }

    pub fn at_end(&self) -> f64 {
        self.mean + self.slope * self.length / 2.0
    }

    /// How much it rose over the window at least, whatever chance did.
    pub fn certain_rise(&self) -> f64 {
        (self.slope - CONFIDENCE * self.error) * self.length
    }
}

#[test]
fn a_leak_is_told_from_chance() {
    let mut dice = crate::disk::Dice(1);
    let mut noisy = |rise: f64| {
        let samples: Vec<(f64, f64)> = (0..200)
            .map(|n| {
                let at = f64::from(n);
                (at, 50.0 + (dice.roll() % 10) as f64 + rise * at / 199.0)
            })
            .collect();
        Line::through(&samples).certain_rise()
    };
    assert!(noisy(0.0) < 1.0, "noise is no leak");
    assert!(noisy(10.0) > 3.0, "a leak of the noise's size is found");
    let exact = Line::through(&[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]);
    assert!((exact.certain_rise() - 2.0).abs() < 1e-9 && (exact.at_end() - 3.0).abs() < 1e-9);
}
