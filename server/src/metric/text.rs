//! Prometheus's text format, version 0.0.4.

use std::fmt::Write;

/// What is served is this.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How the values of a metric are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// An exposition in the making.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn finish(self) -> String {
        self.0
    }

    /// Begins a metric: its samples follow.
    pub(crate) fn head(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.labelled(name, labels);
        writeln!(self.0, " {value}").ok();
    }

    pub(crate) fn whole(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.labelled(name, labels);
        writeln!(self.0, " {value}").ok();
    }

    /// A metric without labels; no sample while its value is not known.
    pub(crate) fn one(&mut self, kind: Kind, name: &str, help: &str, value: Option<f64>) {
        self.head(kind, name, help);
        if let Some(value) = value {
            self.sample(name, &[], value);
        }
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.0.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let lead = if number == 0 { '{' } else { ',' };
            write!(self.0, "{lead}{label}=\"").ok();
            for char in value.chars() {
                match char {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
    }
}
