// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real browser, without a window, told what to do by the DevTools protocol over a pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long an answer may take: a limit for a browser that hangs, no measure.
const PATIENCE: Duration = Duration::from_secs(300);

/// A browser with one page.
pub(crate) struct Chromium {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What came besides answers.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it, with an empty page of this size in pixels, light or dark.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = File::create(profile.path().join("log")).unwrap();
        // It wants its pipe at the descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2",
                "sh",
            ])
            .args(["--headless", "--remote-debugging-pipe", "--disable-gpu"])
            .args([
                "--no-first-run",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            // Tests may run as root, which Chromium's own sandbox refuses.
            .args(["--no-sandbox", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for message in stdout.split(0).map_while(Result::ok) {
                let sent = serde_json::from_slice(&message).map(|message| sender.send(message));
                if !matches!(sent, Ok(Ok(()))) {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            session: String::new(),
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        session["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method, and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).expect(
            "chromium does not run: `cargo xtask setup --tests` installs it (Debian's package \
             `chromium`)",
        );
        loop {
            let answer = self.next();
            if answer["id"] == json!(id) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn next(&mut self) -> Value {
        self.answers.recv_timeout(PATIENCE).expect(
            "chromium does not answer: is it installed? `cargo xtask setup --tests` does it \
             (Debian's package `chromium`)",
        )
    }

    /// Gives the page another size, and another scheme of colors.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let mobile = false;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        );
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Opens a file, and waits until it is loaded.
    pub(crate) fn open(&mut self, path: &Path, fragment: &str) {
        // Another page first: the same one with another fragment would not be loaded again.
        for url in [
            "about:blank".to_owned(),
            format!("file://{}{fragment}", path.display()),
        ] {
            let is_load = |event: &Value| event["method"] == json!("Page.loadEventFired");
            self.events.retain(|event| !is_load(event));
            self.call("Page.navigate", json!({ "url": url }));
            while !self.events.iter().any(is_load) {
                let event = self.next();
                self.events.push(event);
            }
        }
    }

    /// Returns the value of an expression in the page.
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let answer = self.call("Runtime.evaluate", params);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Clicks where the first element that matches is.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.ask(&format!(
            "(() => {{ const node = document.querySelector({selector:?});
               node.scrollIntoView({{ block: 'center' }});
               const box = node.getBoundingClientRect();
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Presses keys, one after the other, by their names in `KeyboardEvent.key`.
    pub(crate) fn press(&mut self, keys: &[&str]) {
        for key in keys {
            let code = match *key {
                "Tab" => 9,
                "Enter" => 13,
                "Escape" => 27,
                "End" => 35,
                "Home" => 36,
                "ArrowLeft" => 37,
                "ArrowUp" => 38,
                "ArrowRight" => 39,
                "ArrowDown" => 40,
                _ => 0,
            };
            let mut down = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
            if key.chars().count() == 1 {
                down["text"] = json!(key);
            }
            self.call("Input.dispatchKeyEvent", down);
            let up = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", up);
        }
    }

    /// Returns a picture of what is seen, as base64 of a PNG.
    pub(crate) fn picture(&mut self) -> String {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        answer["data"].as_str().unwrap().to_owned()
    }

    /// Returns what has gone wrong in the page, and what it has asked others for.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let is_bad = |event: &&Value| {
            let params = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                    .iter()
                    .any(|kind| params["type"] == **kind),
                Some("Log.entryAdded") => ["error", "warning"]
                    .iter()
                    .any(|level| params["entry"]["level"] == **level),
                Some("Network.requestWillBeSent") => {
                    let url = params["request"]["url"].as_str().unwrap_or("?");
                    let is_page = params["type"] == "Document" && url.starts_with("file:///");
                    !is_page && url != "about:blank" && !url.starts_with("data:")
                }
                Some("Page.javascriptDialogOpening" | "Network.webSocketCreated") => true,
                _ => false,
            }
        };
        self.events
            .iter()
            .filter(is_bad)
            .map(Value::to_string)
            .collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.session.clear();
        let _ = self
            .commands
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        // Until it has closed the pipe; its profile is removed after that.
        while self.answers.recv_timeout(Duration::from_secs(20)).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
