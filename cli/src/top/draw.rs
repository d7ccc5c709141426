//! What is seen of the model: totals, a line for each pod, and the keys.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::model::{Model, Sort};
use crate::human::{size, visible};
use crate::usage::{PodUsage, cores};

/// Columns of a history.
const SPARKS: u16 = 20;
/// From nothing to all.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// What fills a history of the processor at the least, lest idling look like work: a hundredth of a core.
const LEAST_CORES: u64 = 10_000_000;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let parts = [Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(totals(model)), head);
    let mut state = TableState::default().with_selected(model.selected_at());
    frame.render_stateful_widget(table(model), body, &mut state);
    frame.render_widget(Paragraph::new(keys(model)), foot);
}

fn totals(model: &Model) -> Line<'static> {
    let pods = model.pods();
    let containers: usize = pods.iter().map(|pod| pod.containers).sum();
    let nano_cores = pods.iter().map(|pod| pod.nano_cores).sum();
    let memory = pods.iter().map(|pod| pod.memory).sum();
    let paused = if model.is_paused() { "  paused" } else { "" };
    let pods = pods.len();
    let text = format!(
        "pods {pods}  containers {containers}  CPU {}  memory {}{paused}",
        cores(nano_cores),
        size(memory)
    );
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn table(model: &Model) -> Table<'static> {
    let right = |text: String| Text::from(text).alignment(Alignment::Right);
    let titles = [
        Text::from("POD"),
        right("CTRS".to_owned()),
        right(title("CPU", Sort::Cpu, model)),
        Text::from(""),
        right(title("MEMORY", Sort::Memory, model)),
        Text::from(""),
    ];
    let row = |pod: &PodUsage| {
        let history = model.history(pod).cloned().unwrap_or_default();
        Row::new([
            Text::from(visible(&pod.name)),
            right(pod.containers.to_string()),
            right(cores(pod.nano_cores)),
            Text::from(sparks(&history.nano_cores, LEAST_CORES)),
            right(size(pod.memory)),
            Text::from(sparks(&history.memory, 1)),
        ])
    };
    let widths = [
        Constraint::Min(12),
        Constraint::Length(4),
        Constraint::Length(8),
        Constraint::Length(SPARKS),
        Constraint::Length(9),
        Constraint::Length(SPARKS),
    ];
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    Table::new(model.pods().iter().map(row), widths)
        .header(Row::new(titles).style(reversed))
        .row_highlight_style(reversed)
}

fn title(name: &str, of: Sort, model: &Model) -> String {
    match model.sort() {
        (sort, false) if sort == of => format!("{name}▼"),
        (sort, true) if sort == of => format!("{name}▲"),
        _ => name.to_owned(),
    }
}

/// The latest values as bars, the last at the right; the highest of all, but at least `full`, fills one.
fn sparks(values: &VecDeque<u64>, full: u64) -> String {
    let full = values.iter().copied().max().unwrap_or(0).max(full);
    let steps = BARS.len() - 1;
    let bar = |value: u64| {
        // Whatever is not nothing is seen.
        let step = (u128::from(value) * steps as u128).div_ceil(u128::from(full));
        BARS[usize::try_from(step).unwrap_or(steps).min(steps)]
    };
    let columns = usize::from(SPARKS);
    let shown = values.iter().skip(values.len().saturating_sub(columns));
    let bars: String = shown.map(|value| bar(*value)).collect();
    format!("{}{bars}", " ".repeat(columns.saturating_sub(values.len())))
}

fn keys(model: &Model) -> Line<'static> {
    match model.trouble() {
        Some(why) => {
            let text = visible(why).replace('\n', " ");
            Line::styled(text, Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED))
        }
        None => Line::from("c CPU  m memory  n name  r reverse  space pause  ↑↓ select  q quit"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::tests::pod;
    use super::super::model::{Key, Message};
    use super::*;

    fn seen(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let screen = terminal.backend().buffer().clone();
        let line =
            |y| -> String { (0..width).map(|x| screen[(x, y)].symbol().to_owned()).collect() };
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn totals_a_line_for_each_pod_and_the_keys() {
        let mut model = Model::default();
        model.update(Message::Told(vec![
            pod("web", 0, 5_000_000),
            pod("db", 500_000_000, 1_000_000),
        ]));
        model.update(Message::Told(vec![
            pod("web", 1_000_000, 5_000_000),
            pod("db", 1_000_000_000, 2_000_000),
        ]));
        let lines = seen(&model, 80, 6);
        assert_eq!(lines[0], "pods 2  containers 2  CPU 100.1%  memory 7.00 MB");
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(words(&lines[1]), ["POD", "CTRS", "CPU▼", "MEMORY"]);
        assert_eq!(words(&lines[2]), ["db", "1", "100.0%", "▄█", "2.00", "MB", "▄█"]);
        assert_eq!(words(&lines[3]), ["web", "1", "0.1%", "▁", "5.00", "MB", "██"]);
        assert!(lines[5].starts_with("c CPU  m memory"), "{lines:#?}");
        model.update(Message::Key(Key::Sort(Sort::Memory)));
        model.update(Message::Key(Key::Pause));
        model.update(Message::Failed("the daemon\nis gone".into()));
        let lines = seen(&model, 80, 6);
        assert!(lines[0].ends_with("  paused") && lines[1].contains("MEMORY▼"), "{lines:#?}");
        assert!(lines[2].starts_with("web") && lines[5] == "the daemon is gone", "{lines:#?}");
    }

    #[test]
    fn the_selected_pod_is_seen_and_a_small_terminal_breaks_nothing() {
        let mut model = Model::default();
        let all = (0..50).map(|at| pod(&format!("pod-{at:02}"), 100 - at, at)).collect();
        model.update(Message::Told(all));
        (0..40).for_each(|_| model.update(Message::Key(Key::Down)));
        let lines = seen(&model, 80, 10);
        assert!(lines.iter().any(|line| line.starts_with("pod-39")), "{lines:#?}");
        for (width, height) in [(1, 1), (10, 2), (300, 3), (5, 40)] {
            seen(&model, width, height);
        }
        seen(&Model::default(), 80, 5);
    }

    #[test]
    fn bars_are_scaled_by_the_highest() {
        let of = |values: &[u64], full| {
            sparks(&values.iter().copied().collect(), full).trim_start().to_owned()
        };
        assert_eq!(of(&[8, 4, 1, 0, 8], 1), "█▄▁ █");
        assert_eq!(of(&[1, 2], 16), "▁▁");
        assert_eq!(of(&[u64::MAX, 1], 1), "█▁");
        let long: Vec<u64> = (1..=50).collect();
        assert_eq!(sparks(&long.into_iter().collect(), 1).chars().count(), usize::from(SPARKS));
        assert_eq!(sparks(&VecDeque::new(), 1).len(), usize::from(SPARKS));
    }
}
