//! What was measured of whom: the one form that tables, plots and files are made from.

use serde::{Deserialize, Serialize};

use crate::measure::Samples;

/// Everything of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine and how much was done on it.
    pub about: String,
    /// Whose figures stand in each row, in this order.
    pub contestants: Vec<String>,
    /// Which of them the others are compared with.
    pub peer: Option<usize>,
    pub rows: Vec<Row>,
}

/// The same thing of every contestant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub group: String,
    pub what: String,
    pub unit: Unit,
    /// `None`: it was not measured, or the contestant cannot.
    pub figures: Vec<Option<Figure>>,
    /// What nobody can do better on this machine, measured in the same run.
    pub floor: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Milliseconds,
    /// Of a core.
    Percent,
    Megabytes,
    MegabytesPerSecond,
    /// The processor's for each gigabyte.
    SecondsPerGigabyte,
}

/// One contestant's; the median where there are several samples. A 99th percentile of fewer than a hundred is the longest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub value: f64,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub target: Option<Target>,
    /// Which of them the target is of.
    #[serde(default)]
    pub judged: Judged,
}

/// A percentile. Shares are of medians.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    #[default]
    P50,
    P90,
    P99,
}

/// What design section 6 wants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Of the peer's cost.
    Share(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Percent => "%",
            Self::Megabytes => "MB",
            Self::MegabytesPerSecond => "MB/s",
            Self::SecondsPerGigabyte => "s/GB",
        }
    }

    fn more_is_better(self) -> bool {
        self == Self::MegabytesPerSecond
    }
}

impl Figure {
    pub fn of(value: f64) -> Self {
        Self { value, p90: None, p99: None, target: None, judged: Judged::P50 }
    }

    /// Milliseconds.
    pub fn sampled(samples: &Samples) -> Self {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| samples.percentile(percent));
        Self { p90: Some(p90), p99: Some(p99), ..Self::of(p50) }
    }

    #[must_use]
    pub fn target(self, target: Option<Target>) -> Self {
        Self { target, ..self }
    }

    /// The target is of another percentile than the median.
    #[must_use]
    pub fn by(self, judged: Judged) -> Self {
        Self { judged, ..self }
    }

    /// What is held against a target that is a number.
    fn judged(&self) -> f64 {
        let other = match self.judged {
            Judged::P50 => None,
            Judged::P90 => self.p90,
            Judged::P99 => self.p99,
        };
        other.unwrap_or(self.value)
    }

    /// The target in words, with the percentile where there are several.
    pub fn wanted(&self, unit: Unit) -> Option<String> {
        let text = self.target?.text(unit);
        let percentile = match self.judged {
            Judged::P50 => "p50",
            Judged::P90 => "p90",
            Judged::P99 => "p99",
        };
        Some(if self.p90.is_some() { format!("{percentile} {text}") } else { text })
    }
}

impl Row {
    pub fn new(group: &str, what: &str, unit: Unit, figures: Vec<Option<Figure>>) -> Self {
        Self { group: group.into(), what: what.into(), unit, figures, floor: None }
    }

    /// What none of so many contestants is measured by, beside them.
    pub fn alone(group: &str, what: &str, unit: Unit, contestants: usize, value: f64) -> Self {
        Self::new(group, what, unit, vec![None; contestants]).floor(value)
    }

    #[must_use]
    pub fn floor(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }

    /// A contestant's cost as a share of the peer's: less is better, whatever the unit.
    pub fn share(&self, at: usize, peer: usize) -> Option<f64> {
        let value = |at: usize| self.figures.get(at)?.map(|figure| figure.value);
        let (own, other) = (value(at)?, value(peer)?);
        let (cost, of) = if self.unit.more_is_better() { (other, own) } else { (own, other) };
        (of > 0.0).then(|| cost / of)
    }

    /// Whether a contestant's target is met; `None` where it has none, or nothing to compare it with.
    pub fn meets(&self, at: usize, peer: Option<usize>) -> Option<bool> {
        let figure = self.figures.get(at).copied().flatten()?;
        Some(match figure.target? {
            Target::Share(most) => self.share(at, peer?)? <= most,
            Target::AtMost(most) => figure.judged() <= most,
            Target::AtLeast(least) => figure.judged() >= least,
        })
    }
}

impl Target {
    fn text(self, unit: Unit) -> String {
        match self {
            Self::Share(most) => format!("≤ {most} ×"),
            Self::AtMost(most) => format!("≤ {most} {}", unit.name()),
            Self::AtLeast(least) => format!("≥ {least} {}", unit.name()),
        }
    }
}
