//! The terminal: taken, watched for keys, and given back.
//!
//! Three threads send what happens to the one that draws: keys, signals, and what the daemon says. So a daemon that takes
//! its time delays no key. However it ends, by a key, a signal, an error or a panic, the terminal is as it was before.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    asking::{Asker, Rounds},
    known::{Heard, Known},
    screen::{Palette, Screen},
    view::{Next, View},
};
use crate::control::{Daemon, Starting};

/// Without any news the screen is drawn this often: how long the daemon has been silent is news too.
const TICK: Duration = Duration::from_secs(1);

/// Something happened.
enum News {
    Heard(Box<Heard>),
    Terminal(Event),
    /// Somebody wants it to end, or nobody is there any more.
    End,
}

impl From<Heard> for News {
    fn from(heard: Heard) -> Self {
        Self::Heard(Box::new(heard))
    }
}

/// Shows the node until the user has seen enough.
pub fn run(daemon: &Daemon, interval: Duration, palette: Palette) -> Result<()> {
    let mut known = Known {
        interval,
        ..Known::default()
    };
    let mut view = View::default();
    // What cannot be asked for at all is said where one can read it, as all commands say it.
    let asker = Asker::new(daemon.clone());
    match asker.status_or_error() {
        // That takes a moment.
        Err(error) if error.is::<Starting>() => known.hear(asker.status()),
        first => known.hear(first?),
    }
    let (sender, news) = mpsc::channel();
    let (wishes, wished) = mpsc::channel();
    watch_signals(sender.clone())?;
    let mut terminal = Taken::take()?;
    watch_keys(sender.clone())?;
    let rounds = Rounds::new(daemon.clone(), view.wanted(), wished, sender);
    spawn("top-asking", move || rounds.run(interval))?;
    loop {
        let now = Instant::now();
        let screen = Screen {
            known: &known,
            palette,
        };
        terminal
            .0
            .draw(|frame| screen.draw(&mut view, frame.buffer_mut(), now))
            .context("cannot draw on the terminal")?;
        let before = view.wanted();
        for news in wait(&news) {
            match news {
                News::End => return Ok(()),
                News::Heard(heard) => known.hear(*heard),
                News::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    match view.press(key, &known) {
                        Next::Go => {}
                        Next::Redraw => terminal.forget()?,
                        Next::Quit => return Ok(()),
                    }
                }
                // Whatever size it has is found out when it is drawn on.
                News::Terminal(_) => {}
            }
        }
        if view.wanted() != before {
            // Whoever asks ends with this thread only.
            let _ = wishes.send(view.wanted());
        }
    }
}

/// Everything that has happened, once something has; nothing, if that takes long.
fn wait(news: &Receiver<News>) -> Vec<News> {
    match news.recv_timeout(TICK) {
        Ok(first) => std::iter::once(first).chain(news.try_iter()).collect(),
        Err(RecvTimeoutError::Timeout) => Vec::new(),
        Err(RecvTimeoutError::Disconnected) => vec![News::End],
    }
}

/// The terminal, ours as long as this value lives.
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> Result<Self> {
        let taken = ratatui::try_init().inspect_err(|_| give_back());
        Ok(Self(taken.context("cannot use this terminal")?))
    }

    /// What is on it is unknown: all of it is drawn next time. `Terminal::clear` would ask the terminal where its cursor is,
    /// which not every terminal answers, and the thread that waits for keys hears.
    fn forget(&mut self) -> Result<()> {
        let size = self.0.size()?;
        Ok(self.0.resize(size.into())?)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A terminal that has gone shows no cursor.
        let _ = self.0.show_cursor();
        give_back();
    }
}

fn give_back() {
    // A terminal that has gone needs nothing put back.
    let _ = ratatui::try_restore();
}

fn watch_keys(sender: Sender<News>) -> Result<()> {
    spawn("top-keys", move || {
        while let Ok(event) = event::read() {
            if sender.send(News::Terminal(event)).is_err() {
                return;
            }
        }
        // Nobody listens any more, or will hear this.
        let _ = sender.send(News::End);
    })
}

/// Signals that end a program end this one in order.
fn watch_signals(sender: Sender<News>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for signals")?;
    let catch = |kind| {
        let _inside = runtime.enter();
        signal(kind).context("cannot watch for signals")
    };
    let mut terminate = catch(SignalKind::terminate())?;
    let mut hangup = catch(SignalKind::hangup())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    spawn("top-signals", move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        // Whoever does not listen has ended already.
        let _ = sender.send(News::End);
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).context("cannot start a thread")?;
    Ok(())
}
