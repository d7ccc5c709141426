//! `podwright top`: what pods use, as it changes, until somebody has seen enough.
//!
//! The loop here only carries messages: `model` says what they change, `draw` what is seen of it. Whatever ends it, a
//! key, a signal, an error or a panic, the terminal is as it was before.

mod draw;
mod model;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::daemon::Daemon;
use crate::failure;
use crate::usage;

use model::{Key, Message, Model, Sort};

/// What is nice to look at, and long enough for the daemon to tell a rate.
const PERIOD: Duration = Duration::from_secs(2);
/// Keys that wait to be read.
const TYPED_AHEAD: usize = 16;

/// Show what pods use, on the whole terminal
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("top needs a terminal; podwright stats --once prints the same once");
    }
    let mut ended = signal(SignalKind::terminate())?;
    let mut model = Model::default();
    // Before the terminal changes, so that a daemon that is not there is told as elsewhere.
    let mut loading = Box::pin(load(daemon.clone(), Duration::ZERO));
    model.update((&mut loading).await?);
    loading = Box::pin(load(daemon.clone(), PERIOD));
    let mut screen = Screen::take()?;
    let mut keys = keys();
    while !model.is_over() {
        screen.0.draw(|frame| draw::draw(frame, &model))?;
        tokio::select! {
            told = &mut loading => {
                model.update(told.unwrap_or_else(|err| Message::Failed(failure::describe(&err))));
                loading = Box::pin(load(daemon.clone(), PERIOD));
            }
            // The terminal is gone when nobody types any more.
            key = keys.recv() => model.update(key.unwrap_or(Message::Key(Key::Quit))),
            _ = ended.recv() => model.update(Message::Key(Key::Quit)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(mut daemon: Daemon, after: Duration) -> anyhow::Result<Message> {
    tokio::time::sleep(after).await;
    let (list, all) = usage::listed(&mut daemon).await?;
    Ok(Message::Told(usage::by_pod(&usage::of(&list.stats, &all), &all)))
}

/// The terminal while it is ours.
#[derive(Debug)]
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    /// Also of a panic the terminal recovers: ratatui sets a hook for that.
    fn take() -> anyhow::Result<Self> {
        Ok(Self(ratatui::try_init()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What is typed, read on a thread of its own, which ends with the process.
fn keys() -> mpsc::Receiver<Message> {
    let (sender, receiver) = mpsc::channel(TYPED_AHEAD);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let message = match event {
                Event::Key(key) => meaning(key).map(Message::Key),
                Event::Resize(..) => Some(Message::Resized),
                _ => None,
            };
            if message.is_some_and(|message| sender.blocking_send(message).is_err()) {
                return;
            }
        }
    });
    receiver
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('c') => Some(Key::Sort(Sort::Cpu)),
        KeyCode::Char('m') => Some(Key::Sort(Sort::Memory)),
        KeyCode::Char('n') => Some(Key::Sort(Sort::Name)),
        KeyCode::Char('r') => Some(Key::Reverse),
        KeyCode::Char(' ') => Some(Key::Pause),
        KeyCode::Char('k') | KeyCode::Up => Some(Key::Up),
        KeyCode::Char('j') | KeyCode::Down => Some(Key::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_c_ends_and_c_alone_sorts() {
        let key = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Some(Key::Sort(Sort::Cpu)));
        assert_eq!(key(KeyCode::Char('x'), KeyModifiers::NONE), None);
        let mut released = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(meaning(released), None);
    }
}
