//! What a pull looks like: bars on a terminal, elsewhere a line for each layer that is here.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use api::node::v1::{LayerState, PullProgress, PulledLayer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::human;

/// How the elapsed time and the speed go on between two messages.
const TICK: Duration = Duration::from_millis(200);
const BYTES: &str = "{prefix:12} [{bar:24}] {decimal_bytes:>9}/{decimal_total_bytes:<9} {decimal_bytes_per_sec:>11} {msg}";
const SETTLED: &str = "{prefix:12} {msg}";
const WHOLE: &str = "{prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}  {msg} {elapsed}";
const BEGINS: &str = "{prefix} {msg} {elapsed}";

/// Where it is shown.
pub(super) enum View {
    Nowhere,
    Lines(Lines),
    Bars(Bars),
}

impl View {
    pub(super) fn new(reference: &str, quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Nowhere,
            (false, true) => Self::Bars(Bars::new(reference)),
            (false, false) => Self::Lines(Lines::default()),
        }
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, now: &PullProgress) -> std::io::Result<()> {
        match self {
            Self::Nowhere => {}
            Self::Lines(lines) => {
                for line in lines.new_of(now) {
                    writeln!(std::io::stderr(), "{line}")?;
                }
            }
            Self::Bars(bars) => bars.show(now),
        }
        Ok(())
    }

    /// Takes away what moves.
    pub(super) fn end(self) {
        if let Self::Bars(bars) = self {
            bars.all.clear().ok();
        }
    }
}

/// Of layers that are here.
#[derive(Default)]
pub(super) struct Lines {
    told: Vec<bool>,
}

impl Lines {
    /// Those that were not told yet.
    fn new_of(&mut self, now: &PullProgress) -> Vec<String> {
        self.told.resize(now.layers.len(), false);
        let here = |layer: &PulledLayer| {
            matches!(layer.state(), LayerState::LayerDone | LayerState::LayerAlreadyHere)
        };
        let layers = self.told.iter_mut().zip(&now.layers);
        let new = layers.filter(|(told, layer)| !**told && here(layer));
        new.map(|(told, layer)| {
            *told = true;
            format!("{}  {}", human::short(&layer.digest), state(layer))
        })
        .collect()
    }
}

/// What goes on with a layer, in words.
fn state(layer: &PulledLayer) -> String {
    let (size, unpacked) = (human::size(layer.size), human::size(layer.unpacked));
    match layer.state() {
        LayerState::LayerWaiting => "waiting".into(),
        LayerState::LayerFetching => format!("unpacked {unpacked}"),
        LayerState::LayerUnpacking => format!("unpacking, {unpacked}"),
        LayerState::LayerDone => format!("{size} fetched, {unpacked} unpacked"),
        LayerState::LayerAlreadyHere => format!("{size} already here"),
    }
}

/// One for each layer and one for all.
pub(super) struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    layers: Vec<ProgressBar>,
}

impl Bars {
    fn new(reference: &str) -> Self {
        let all = MultiProgress::new();
        let whole = all.add(ProgressBar::new(0)).with_prefix(human::visible(reference));
        whole.set_style(style(BEGINS));
        whole.enable_steady_tick(TICK);
        Self { all, whole, layers: Vec::new() }
    }

    fn show(&mut self, now: &PullProgress) {
        if now.layers.len() != self.layers.len() {
            self.begin(now);
        }
        for (bar, layer) in self.layers.iter().zip(&now.layers) {
            show_layer(bar, layer);
        }
        let joined = if now.joined { ", begun by another" } else { "" };
        self.whole.set_message(format!("{}{joined}", human::visible(&now.stage)));
        if let Some(transfer) = &now.transfer {
            self.whole.set_position(transfer.bytes_done);
        }
    }

    fn begin(&mut self, now: &PullProgress) {
        for bar in self.layers.drain(..) {
            self.all.remove(&bar);
        }
        for layer in &now.layers {
            let bar = self.all.insert_before(&self.whole, ProgressBar::new(layer.size));
            bar.set_prefix(human::short(&layer.digest).to_owned());
            bar.set_style(style(SETTLED));
            self.layers.push(bar);
        }
        let total = now.transfer.as_ref().map_or(0, |transfer| transfer.bytes_total);
        self.whole.set_length(total);
        self.whole.set_style(style(if total > 0 { WHOLE } else { BEGINS }));
    }
}

fn show_layer(bar: &ProgressBar, layer: &PulledLayer) {
    let moving = layer.state() == LayerState::LayerFetching;
    // What was fetched before we looked on says nothing of the speed.
    if moving && bar.position() == 0 && layer.fetched > 0 {
        bar.set_style(style(BYTES));
        bar.set_position(layer.fetched);
        bar.reset_eta();
    }
    bar.set_style(style(if moving { BYTES } else { SETTLED }));
    bar.set_position(layer.fetched);
    bar.set_message(state(layer));
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(state: LayerState, fetched: u64, unpacked: u64) -> PulledLayer {
        let digest = format!("sha256:{}", "ab".repeat(32));
        PulledLayer { digest, size: 1000, fetched, unpacked, state: state.into() }
    }

    #[test]
    fn each_layer_is_told_once_when_it_is_here() {
        let mut lines = Lines::default();
        let mut told =
            |layers: Vec<PulledLayer>| lines.new_of(&PullProgress { layers, ..Default::default() });
        assert!(told(Vec::new()).is_empty(), "none is known yet");
        let here = layer(LayerState::LayerAlreadyHere, 1000, 0);
        let comes = layer(LayerState::LayerFetching, 500, 900);
        assert_eq!(told(vec![here.clone(), comes]), ["abababababab  1.00 kB already here"]);
        let came = layer(LayerState::LayerDone, 1000, 2500);
        let line = "abababababab  1.00 kB fetched, 2.50 kB unpacked";
        assert_eq!(told(vec![here.clone(), came.clone()]), [line]);
        assert!(told(vec![here, came]).is_empty());
    }

    #[test]
    fn templates_are_good() {
        for template in [BYTES, SETTLED, WHOLE, BEGINS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
