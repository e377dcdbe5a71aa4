// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page in a real browser: what one sees, filters, opens, and reaches by keyboard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebreak_report::{Class, html, html_compare};
use serde_json::json;

use crate::chromium::Chromium;
use crate::sample;

/// What stays after a test, to be looked at.
fn kept(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

fn page(name: &str, html: &str) -> PathBuf {
    let path = kept(name);
    fs::write(&path, html).unwrap();
    path
}

const SHOWN: &str = "[...document.querySelectorAll('.cell:not(.off)')].length";
const FOCUSED: &str = "document.activeElement.getAttribute('aria-label') || ''";

#[test]
fn the_page_of_a_run_works_in_a_browser() {
    let results = sample::linux(1);
    let path = page("linux.html", &html(&results).unwrap());
    let mut browser = Chromium::start();
    browser.look(1600, 1000, "light");
    browser.open(&path, "");

    // The matrix: two tables (RAS visible or not) of 8 errors by 6 moments.
    assert_eq!(browser.ask("document.documentElement.dataset.drawn"), "yes");
    assert_eq!(
        browser.ask("document.querySelectorAll('table.grid').length"),
        2
    );
    assert_eq!(browser.ask(SHOWN), 96);
    let errors = browser.ask(
        "[...document.querySelectorAll('table.grid')[0].querySelectorAll('tbody th')]
         .map((node) => node.textContent).join()",
    );
    assert_eq!(
        errors,
        "ce,ueo,uer,ueu,uc,impdef,reserved-aet,uncategorized"
    );
    let unexpected = results
        .cases
        .iter()
        .filter(|case| case.ok == Some(false))
        .count();
    let first = browser.ask("document.querySelector('.figures li').textContent");
    assert_eq!(first, format!("{unexpected}unexpected"));

    // A filter filters, is in the address, and survives a new load.
    let hung = results
        .cases
        .iter()
        .filter(|case| case.class == Class::Hung)
        .count();
    browser.click("#legend [data-class=hung]");
    let shown = format!("{hung} of 192 cases");
    assert_eq!(
        browser.ask("document.getElementById('shown').textContent"),
        shown
    );
    assert_eq!(browser.ask("location.hash"), "#class=hung");
    browser.open(&path, "#class=hung");
    assert_eq!(
        browser.ask("document.getElementById('shown').textContent"),
        shown
    );
    browser.click("#clear");
    assert_eq!(browser.ask("location.hash"), "");
    assert_eq!(browser.ask(SHOWN), 96);

    // A search looks into consoles too, and nothing of what it finds there has run.
    browser.press(&["/"]);
    browser.press(&["o", "w", "n", "e", "d"]);
    browser.ask("new Promise((done) => setTimeout(done, 400))");
    assert_eq!(
        browser.ask("document.getElementById('shown').textContent"),
        "1 of 192 cases"
    );
    assert_eq!(browser.ask("location.hash"), "#q=owned");
    browser.click("#clear");

    by_keyboard(&mut browser);
    hostile(&mut browser, &path);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn by_keyboard(browser: &mut Chromium) {
    browser.ask("document.querySelector('table.grid .cell').focus()");
    let start = browser.ask(FOCUSED);
    assert!(start.as_str().unwrap().starts_with("ce, el0: "), "{start}");
    browser.press(&["ArrowRight", "ArrowDown"]);
    let there = browser.ask(FOCUSED);
    assert!(there.as_str().unwrap().starts_with("ueo, el1: "), "{there}");
    browser.press(&["ArrowUp", "ArrowUp", "Home", "ArrowLeft"]);
    assert_eq!(browser.ask(FOCUSED), start);
    browser.press(&["ArrowDown", "End", "Enter"]);
    assert_eq!(
        browser.ask("document.getElementById('panel').hidden"),
        false
    );
    let name = browser.ask("document.getElementById('case-name').textContent");
    assert!(
        name.as_str().unwrap().starts_with("ueo/while-copying/"),
        "{name}"
    );
    assert_eq!(
        browser.ask("location.hash"),
        format!("#case={}", name.as_str().unwrap())
    );
    assert_eq!(browser.ask("document.activeElement.id"), "case-name");
    let command = browser.ask("document.querySelector('#panel .command code').textContent");
    let expected = format!(
        "firebreak campaign plans/linux-serror.toml --case {}",
        name.as_str().unwrap()
    );
    assert_eq!(command, expected);
    assert_eq!(
        browser.ask("document.querySelectorAll('#panel .timeline tr').length"),
        5
    );
    // Tab goes round in the case, and does not get lost on the page that it covers.
    let stops = "document.querySelectorAll('#panel :is(a[href], button:not(:disabled), [tabindex=\"0\"])').length";
    let stops = browser.ask(stops).as_u64().unwrap();
    let inside = "document.getElementById('panel').contains(document.activeElement)";
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..=stops {
        browser.press(&["Tab"]);
        assert_eq!(browser.ask(inside), true);
        seen.insert(browser.ask("document.activeElement.outerHTML").to_string());
    }
    assert!(
        seen.len() as u64 == stops && stops > 3,
        "{seen:?} of {stops}"
    );
    let badge = "document.querySelector('#panel .who .guest').checkVisibility()";
    assert_eq!(browser.ask(badge), true);
    browser.press(&["j"]);
    assert_ne!(
        browser.ask("document.getElementById('case-name').textContent"),
        name
    );
    browser.press(&["Escape"]);
    assert_eq!(browser.ask("document.getElementById('panel').hidden"), true);
    let back = browser.ask(FOCUSED);
    assert!(
        back.as_str().unwrap().starts_with("ueo, while-copying: "),
        "{back}"
    );
    // What one opened is a step that one can take back.
    browser.ask("history.back()");
    browser.ask("new Promise((done) => setTimeout(done, 200))");
    assert_eq!(
        browser.ask("document.getElementById('panel').hidden"),
        false
    );
}

fn hostile(browser: &mut Chromium, path: &Path) {
    browser.open(path, "#case=ce/el0/visible/0");
    assert_eq!(browser.ask("typeof window.owned"), "undefined");
    let console = browser.ask("document.querySelector('#panel .console').textContent");
    let console = console.as_str().unwrap();
    assert!(
        console.starts_with("</script><script>window.owned=1</script><img"),
        "{console}"
    );
    assert!(console.contains("\\u2028\u{241b}[31m"), "{console}");
    assert_eq!(
        browser.ask("document.querySelectorAll('img, iframe, script[src]').length"),
        0
    );
}

#[test]
fn thousands_of_cases_are_a_map_and_quick_to_filter() {
    let results = sample::baremetal(1024);
    let path = page("baremetal.html", &html(&results).unwrap());
    let mut browser = Chromium::start();
    browser.look(1600, 1000, "light");
    browser.open(&path, "");
    assert_eq!(browser.ask("document.querySelectorAll('.iss').length"), 4);
    assert_eq!(browser.ask(SHOWN), 4096);
    let faults = results
        .cases
        .iter()
        .filter(|case| case.class == Class::HypervisorFault)
        .count();
    assert_eq!(
        browser.ask("document.querySelectorAll('.cell.F').length"),
        faults
    );
    browser.click("#legend [data-class=hypervisor-fault]");
    assert_eq!(browser.ask(SHOWN), faults);
    // From the first column to the eighteenth: DFSC 0x11, where AET counts.
    browser.click("#clear");
    browser.ask("document.querySelector('.iss .cell').focus()");
    browser.press(&["ArrowRight"; 0x11]);
    browser.press(&["ArrowDown", "ArrowDown"]);
    let there = browser.ask(FOCUSED);
    assert!(there.as_str().unwrap().starts_with("0x811: "), "{there}");
    browser.press(&["Enter"]);
    let name = browser.ask("document.getElementById('case-name').textContent");
    assert!(name.as_str().unwrap().starts_with("0x811/"), "{name}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn two_runs_are_shown_side_by_side() {
    let (before, mut after) = (sample::linux(1), sample::linux(2));
    after.cases.remove(7);
    let path = page("compare.html", &html_compare(&before, &after).unwrap());
    let comparison = firebreak_report::compare(&before, &after);
    let worse = comparison.changes.iter().filter(|one| one.worse).count();
    let mut browser = Chromium::start();
    browser.look(1600, 1000, "light");
    browser.open(&path, "#change=worse");
    let shown = browser.ask("document.getElementById('shown').textContent");
    assert_eq!(shown, format!("{worse} of 192 cases"));
    browser.click("#worth a");
    let columns = browser.ask("document.querySelectorAll('#panel .columns > div').length");
    assert_eq!(columns, 2);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Every page at three widths, light and dark: nothing sticks out, and a picture stays.
#[test]
fn pages_fit_every_width() {
    let (linux, baremetal) = (sample::linux(1), sample::baremetal(1024));
    let mut cut = sample::linux(3);
    cut.end = None;
    cut.cases.truncate(120);
    let pages = [
        ("linux", html(&linux).unwrap(), ""),
        (
            "case",
            html(&linux).unwrap(),
            "#case=uer/el1-masked/visible/0",
        ),
        ("baremetal", html(&baremetal).unwrap(), ""),
        ("cut", html(&cut).unwrap(), "#verdict=unexpected"),
        ("compare", html_compare(&linux, &cut).unwrap(), ""),
    ];
    let mut browser = Chromium::start();
    for (name, html, fragment) in &pages {
        let path = page(&format!("look-{name}.html"), html);
        browser.look(1600, 1000, "light");
        browser.open(&path, fragment);
        for (width, height) in [(360, 740), (900, 1000), (1600, 1000)] {
            for scheme in ["light", "dark"] {
                browser.look(width, height, scheme);
                let size = browser.ask(
                    "[document.documentElement.scrollWidth, innerWidth,
                      document.documentElement.scrollHeight]",
                );
                let out = browser.ask(
                    "[...document.querySelectorAll('body *')].filter((node) => !node.closest('.scroll')
                       && node.getBoundingClientRect().right > innerWidth).slice(0, 5)
                       .map((node) => node.outerHTML.slice(0, 90)).join('\\n')",
                );
                assert_eq!(
                    size[0],
                    json!(width),
                    "{name} is wider than the page: {out}"
                );
                assert_eq!(size[1], json!(width));
                let height = size[2].as_u64().unwrap().clamp(u64::from(height), 3000);
                let height = u32::try_from(height).unwrap();
                browser.look(width, if *name == "case" { 1400 } else { height }, scheme);
                let picture = browser.picture();
                let path = kept(&format!("{name}-{width}-{scheme}.png"));
                decode_base64(&picture, &path);
            }
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn decode_base64(text: &str, path: &Path) {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 6 | value(*byte));
        let bits = bits << (6 * (4 - chunk.len()));
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    fs::write(path, bytes).unwrap();
}

/// A browser other than the one that the tests drive is no excuse.
#[test]
fn the_browser_is_there() {
    let version = Command::new("chromium")
        .args(["--version", "--no-sandbox"])
        .output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(
        version
            .as_ref()
            .is_ok_and(|text| text.starts_with("Chromium ")),
        "no chromium ({version:?}): `cargo xtask setup --tests` installs Debian's package"
    );
}
