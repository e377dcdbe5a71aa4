// SPDX-License-Identifier: MIT OR Apache-2.0
//! The panes of `firebreak run` in a terminal.

mod draw;
mod view;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::view::{Action, View};
use crate::run::hub::{Hub, Message};

/// How long the screen may lag behind.
const FRAME: Duration = Duration::from_millis(40);

/// Shows the session until it ends; returns why it did.
pub(crate) fn run(
    hub: &Arc<Hub>,
    heard: &Receiver<Message>,
    patience: Duration,
) -> Result<String, String> {
    let told = |error: std::io::Error| format!("the terminal: {error}; try --plain");
    let mut terminal = ratatui::try_init().map_err(told)?;
    let result = follow(&mut terminal, hub, heard, patience).map_err(told);
    ratatui::restore();
    result
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    hub: &Arc<Hub>,
    heard: &Receiver<Message>,
    patience: Duration,
) -> std::io::Result<String> {
    let mut view = View::new();
    let (sender, outcomes) = mpsc::channel();
    let mut stale = true;
    loop {
        loop {
            match heard.try_recv() {
                Ok(Message::Ended(why)) => return Ok(why),
                Ok(_) => stale = true,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok("the session ended".to_owned()),
            }
        }
        for outcome in outcomes.try_iter() {
            view.status = outcome;
            stale = true;
        }
        if std::mem::take(&mut stale) {
            hub.with(|model| {
                terminal
                    .draw(|frame| draw::draw(frame, model, &view))
                    .map(drop)
            })?;
        }
        if !event::poll(FRAME)? {
            continue;
        }
        stale = true;
        let Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let action = hub.with(|model| view.key(key, model));
        if action == Action::Quit {
            return Ok("asked to quit".to_owned());
        }
        act(hub, action, &mut view, &sender, patience);
    }
}

/// Carries out what a key asked for; what waits for an answer does so in a thread of its own.
fn act(hub: &Arc<Hub>, action: Action, view: &mut View, told: &Sender<String>, patience: Duration) {
    let (hub, told) = (Arc::clone(hub), told.clone());
    match action {
        Action::Nothing | Action::Quit => {}
        Action::Type(name, bytes) => {
            if let Err(why) = hub.type_into(&name, &bytes) {
                view.status = why;
            }
        }
        Action::Command(line) => {
            view.status = format!("{line} ...");
            thread::spawn(move || {
                let outcome = match hub.command(&line, patience) {
                    Ok(event) => crate::run::words::answer(&event),
                    Err(why) => why,
                };
                // A screen that is gone needs no outcome.
                let _ = told.send(format!("{line}: {outcome}"));
            });
        }
        Action::Raise(words) => {
            view.status = format!("raise {words} ...");
            thread::spawn(move || {
                let outcome = hub.raise(&words, patience).unwrap_or_else(|why| why);
                let _ = told.send(outcome);
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::run::model::Model;
    use firebreak_qemu::Demux;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    /// A Linux that runs and a victim that was killed.
    pub(crate) fn two_guests() -> Model {
        let mut model = Model::default();
        let (mut demux, mut items) = (Demux::new(), Vec::new());
        for event in [
            r#""ev":"partition","vm":0,"name":"linux","vcpus":2,"pes":[1,2],"ram":[]"#,
            r#""ev":"partition","vm":1,"name":"victim","vcpus":1,"pes":[3],"ram":[{"ipa":"0x40000000","pa":"0x48000000","len":"0x1000000"}]"#,
            r#""ev":"started","vm":0,"name":"linux","restarts":2"#,
            r#""ev":"error","id":7,"pe":3,"vm":1,"name":"victim","from":"el1","severity":"UEU","pa":"0x48001000","owner":"partition","page_vm":1,"verdict":"kill","rule":"own-page""#,
            r#""ev":"killed","vm":1,"name":"victim","reason":"an error in its memory""#,
        ] {
            demux.push(
                format!("\x1e{{\"v\":1,\"t\":1,{event}}}\n").as_bytes(),
                &mut items,
            );
        }
        demux.push(
            b"linux| Linux version 6.1\nlinux> ~ # \nvictim| alive\n",
            &mut items,
        );
        for item in &items {
            model.take(item);
        }
        model
    }

    fn screen(view: &View, width: u16, height: u16) -> String {
        let model = two_guests();
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw::draw(frame, &model, view))
            .unwrap();
        let buffer = terminal.backend().buffer();
        buffer
            .content()
            .chunks(usize::from(width))
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>())
            .map(|row| row.trim_end().to_owned() + "\n")
            .collect()
    }

    #[test]
    fn a_usual_terminal_shows_states_guests_events() {
        let screen = screen(&View::new(), 80, 24);
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines[0], " 1 linux running (2x)  2 victim killed");
        assert!(lines[1].starts_with("\u{250c} linux "), "{screen}");
        for part in [
            "Linux version 6.1",
            "~ #",
            " victim - killed: an error in its memory ",
            "error #7 UEU in memory of victim (0x48001000)",
            "killed victim: an error in its memory",
            "? shows the keys",
        ] {
            assert!(screen.contains(part), "{part} in\n{screen}");
        }
    }

    #[test]
    fn a_wide_terminal_has_events_beside_the_guests() {
        let screen = screen(&View::new(), 120, 40);
        let first = screen.lines().nth(1).unwrap();
        assert!(
            first.contains(" linux ") && first.contains(" events "),
            "{screen}"
        );
    }

    #[test]
    fn a_small_terminal_shows_the_guest_in_focus() {
        let mut view = View::new();
        view.focus = 1;
        let small = screen(&view, 40, 10);
        assert!(
            small.contains("alive") && !small.contains("Linux version"),
            "{small}"
        );
        for (width, height) in [(1, 1), (2, 3), (10, 4), (60, 20), (300, 5)] {
            for mode in [
                view::Mode::Help,
                view::Mode::Typing,
                view::Mode::Prompt("x".repeat(99)),
            ] {
                view.mode = mode;
                screen(&view, width, height);
            }
        }
    }

    #[test]
    fn help_and_prompt_are_seen() {
        let mut view = View::new();
        let model = two_guests();
        let mut press = |c| {
            let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
            view.key(key, &model);
            screen(&view, 80, 24)
        };
        assert!(press('?').contains("inject a virtual SError"));
        press(' ');
        assert!(press('v').contains("> inject linux vcpu=0 serror iss=0x1000000"));
    }
}
