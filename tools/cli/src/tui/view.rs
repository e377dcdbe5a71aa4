// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the keys mean, and what is looked at. No terminal and no thread.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::run::model::Model;

/// What the keyboard is for at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Keys are commands.
    Command,
    /// Keys go to the focused guest.
    Typing,
    /// A line is being edited: `raise ...` or `inject ...`.
    Prompt(String),
    /// Help is shown until a key.
    Help,
}

/// What a key asks the session to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Nothing,
    Quit,
    /// A command of the hypervisor.
    Command(String),
    /// An error for the firmware to raise.
    Raise(String),
    /// Bytes for the console of a partition.
    Type(String, Vec<u8>),
}

/// What is looked at.
pub(crate) struct View {
    pub(crate) focus: usize,
    pub(crate) mode: Mode,
    /// What the last command came to.
    pub(crate) status: String,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            focus: 0,
            mode: Mode::Command,
            status: "? shows the keys".to_owned(),
        }
    }

    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent, model: &Model) -> Action {
        let name = model.partitions.get(self.focus).map(|one| one.name.clone());
        match std::mem::replace(&mut self.mode, Mode::Command) {
            Mode::Help => Action::Nothing,
            Mode::Typing => self.typed(key, name),
            Mode::Prompt(line) => self.prompt(key, line),
            Mode::Command => self.command(key, model, name),
        }
    }

    fn command(&mut self, key: KeyEvent, model: &Model, name: Option<String>) -> Action {
        let count = model.partitions.len();
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Action::Quit;
            }
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Tab if count > 0 => self.focus = (self.focus + 1) % count,
            KeyCode::BackTab if count > 0 => self.focus = (self.focus + count - 1) % count,
            KeyCode::Char(digit @ '1'..='9') => {
                let index = usize::from(digit as u8 - b'1');
                if index < count {
                    self.focus = index;
                }
            }
            KeyCode::Char(letter) => return self.on_guest(letter, model, name),
            _ => {}
        }
        Action::Nothing
    }

    fn on_guest(&mut self, letter: char, model: &Model, name: Option<String>) -> Action {
        let Some(name) = name else {
            "there is no partition yet".clone_into(&mut self.status);
            return Action::Nothing;
        };
        match letter {
            'i' => self.mode = Mode::Typing,
            's' => return Action::Command(format!("start {name}")),
            't' => return Action::Command(format!("stop {name}")),
            'r' => return Action::Command(format!("restart {name}")),
            'v' => self.mode = Mode::Prompt(format!("inject {name} vcpu=0 serror iss=0x1000000")),
            'e' => {
                let guest = model.find(&name);
                let pe = guest.map_or(0, |one| one.pe);
                let pa = guest.and_then(|one| one.pa.clone());
                let pa = pa.map_or(String::new(), |pa| format!(" pa={pa}"));
                let line = format!("raise pe={pe} iss=0xc11 sev=recoverable in=guest{pa}");
                self.mode = Mode::Prompt(line);
            }
            _ => {}
        }
        Action::Nothing
    }

    fn prompt(&mut self, key: KeyEvent, mut line: String) -> Action {
        match key.code {
            KeyCode::Esc => return Action::Nothing,
            KeyCode::Enter => {
                let line = line.trim();
                return match line.strip_prefix("raise ") {
                    Some(words) => Action::Raise(words.to_owned()),
                    None if line.is_empty() => Action::Nothing,
                    None => Action::Command(line.to_owned()),
                };
            }
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => line.clear(),
            KeyCode::Char(c) if c.is_ascii() && !c.is_ascii_control() => line.push(c),
            _ => {}
        }
        self.mode = Mode::Prompt(line);
        Action::Nothing
    }

    fn typed(&mut self, key: KeyEvent, name: Option<String>) -> Action {
        if key.code == KeyCode::Esc {
            return Action::Nothing;
        }
        self.mode = Mode::Typing;
        let bytes = match key.code {
            KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) && c.is_ascii() => {
                vec![(c as u8) & 0x1f]
            }
            KeyCode::Char(c) => c.to_string().into_bytes(),
            KeyCode::Enter => b"\r".to_vec(),
            KeyCode::Backspace => b"\x7f".to_vec(),
            KeyCode::Tab => b"\t".to_vec(),
            KeyCode::Up => b"\x1b[A".to_vec(),
            KeyCode::Down => b"\x1b[B".to_vec(),
            KeyCode::Right => b"\x1b[C".to_vec(),
            KeyCode::Left => b"\x1b[D".to_vec(),
            _ => return Action::Nothing,
        };
        name.map_or(Action::Nothing, |name| Action::Type(name, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::two_guests;

    fn press(view: &mut View, model: &Model, keys: &str) -> Vec<Action> {
        keys.chars()
            .map(|c| {
                let code = match c {
                    '\n' => KeyCode::Enter,
                    '\t' => KeyCode::Tab,
                    '\x1b' => KeyCode::Esc,
                    c => KeyCode::Char(c),
                };
                view.key(KeyEvent::new(code, KeyModifiers::NONE), model)
            })
            .filter(|action| *action != Action::Nothing)
            .collect()
    }

    #[test]
    fn keys_act_on_the_guest_in_focus() {
        let (model, mut view) = (two_guests(), View::new());
        let command = |line: &str| Action::Command(line.to_owned());
        assert_eq!(
            press(&mut view, &model, "t\tr1s29t"),
            [
                command("stop linux"),
                command("restart victim"),
                command("start linux"),
                command("stop victim")
            ]
        );
        assert_eq!(press(&mut view, &model, "q"), [Action::Quit]);
    }

    #[test]
    fn typing_reaches_the_guest_and_escape_comes_back() {
        let (model, mut view) = (two_guests(), View::new());
        let typed = |text: &str| Action::Type("linux".to_owned(), text.as_bytes().to_vec());
        assert_eq!(
            press(&mut view, &model, "iq\t\n\x1bq"),
            [typed("q"), typed("\t"), typed("\r"), Action::Quit]
        );
    }

    #[test]
    fn a_prompt_begins_with_something_that_works() {
        let (model, mut view) = (two_guests(), View::new());
        assert_eq!(
            press(&mut view, &model, "2e\nv\n"),
            [
                Action::Raise("pe=3 iss=0xc11 sev=recoverable in=guest pa=0x48000000".to_owned()),
                Action::Command("inject victim vcpu=0 serror iss=0x1000000".to_owned())
            ]
        );
        assert_eq!(press(&mut view, &model, "e\x1b?x"), []);
        assert_eq!(view.mode, Mode::Command);
    }

    #[test]
    fn without_a_partition_there_is_nothing_to_stop() {
        let (model, mut view) = (Model::default(), View::new());
        assert_eq!(press(&mut view, &model, "tsrev\ti1"), []);
        assert_eq!(view.mode, Mode::Command);
    }
}
