//! The terminal as a screen: what arrives, what is pressed, and the end, after which the terminal is as it was.

use super::{
    args::{Args, LISTED_PAIRS, watch as watch_counters},
    draw, http,
    keys::{KeyAction, press},
    state::State,
    update::Update,
};
use crate::{
    cli::{Failure, server::target, signals::signals},
    proto::v1::WatchRequest,
};
use crossterm::event::{Event, EventStream, KeyEventKind};
use ratatui::DefaultTerminal;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, Receiver, Sender},
        watch,
    },
    time::{sleep, timeout},
};
use tokio_stream::StreamExt;

/// The time between attempts to reach a server.
const RETRY: Duration = Duration::from_secs(2);
/// How long an answer may be late before its server counts as away.
const LATE: Duration = Duration::from_secs(10);
/// Updates that wait to be shown.
const WAITING: usize = 8;

/// The terminal while it is a screen. Dropped, or at a panic, the terminal is as it was.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        ratatui::try_init().map(Self).map_err(|error| Failure::failed(format!("the terminal: {error}")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal has gone, there is nothing to restore.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Shows the counters until a key or a signal ends it.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let request = args.request(LISTED_PAIRS)?;
    let asked = signals()?;
    let (sender, updates) = mpsc::channel(WAITING);
    let (is_early, early) = watch::channel(false);
    let woken = Arc::new(Notify::new());
    let mut screen = Screen::open()?;
    let state = State::new(target(args.server.as_ref()).to_string());
    tokio::select! {
        result = show(&mut screen.0, state, updates, |wanted| {
            is_early.send_replace(wanted);
            woken.notify_one();
        }) => result,
        () = follow(args, request, sender.clone()) => Ok(()),
        () = http::follow(args, sender, Arc::clone(&woken), early) => Ok(()),
        () = asked.end.cancelled() => Ok(()),
        // The terminal was closed.
        () = asked.reload.notified() => Ok(()),
    }
}

/// Draws the state after every update and key.
async fn show(
    terminal: &mut DefaultTerminal,
    mut state: State,
    mut updates: Receiver<Update>,
    ask: impl Fn(bool),
) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("the terminal: {error}"));
    let mut events = EventStream::new();
    loop {
        terminal.draw(|frame| draw::screen(frame, &mut state)).map_err(failed)?;
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => state.update(update),
                None => return Ok(()),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => match press(&mut state, key) {
                    KeyAction::Show => {}
                    KeyAction::Ask => ask(state.is_early),
                    KeyAction::End => return Ok(()),
                },
                // A new size is drawn like everything else.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Ok(()),
            },
        }
    }
}

/// Follows the counters, and connects anew when their server is away.
async fn follow(args: &Args, request: WatchRequest, updates: Sender<Update>) {
    let late = args.interval.0.saturating_mul(2).saturating_add(LATE);
    loop {
        let reason = match timeout(late, watch_counters(args, request)).await {
            Err(_) => "no answer in time".to_owned(),
            Ok(Err(failure)) => failure.to_string(),
            Ok(Ok(mut answers)) => loop {
                let update = match timeout(late, answers.next()).await {
                    Err(_) => break "no answer in time".to_owned(),
                    Ok(Err(error)) => break Failure::failed(error).to_string(),
                    Ok(Ok(None)) => break "the server has ended the connection".to_owned(),
                    Ok(Ok(Some(answer))) => Update::Counters(Box::new(answer)),
                };
                if updates.send(update).await.is_err() {
                    return;
                }
            },
        };
        if updates.send(Update::Away(reason)).await.is_err() {
            return;
        }
        sleep(RETRY).await;
    }
}
