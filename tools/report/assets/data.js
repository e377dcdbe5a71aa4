// SPDX-License-Identifier: MIT OR Apache-2.0
// What the page holds: an index that is read at once, and a line of JSON for each case that is
// read when it is looked at. Guests wrote some of it: it becomes text, never markup.

const index = JSON.parse(document.getElementById("index").textContent);
const lines = document.getElementById("lines").textContent.slice(1).split("\n");
const comparing = index.runs.length === 2;
const run = index.runs[index.runs.length - 1];
const DIMENSIONS = ["guest", "error", "moment", "policy", "firmware", "ras"];
const VERDICTS = ["unexpected", "as expected", "no expectation"];

const outcome = (one) => one && { class: one[0], ok: one[1], line: one[2] };

// Each case by number; `now` is what the report is about, `was` what it is compared with.
const items = index.rows.map((row, number) => {
  const item = { number, name: row[0], repetition: row[7], now: outcome(row[8]), was: outcome(row[9]) };
  DIMENSIONS.forEach((dimension, place) => { item[dimension] = row[1 + place]; });
  item.change = comparing ? row[10] : "";
  item.worse = comparing && row[11] === 1;
  return item;
});
const byName = new Map(items.map((item) => [item.name, item]));

const classOf = (one) => index.classes[one.class];
const last = (item) => item.now || item.was;
const styleOf = (kind) => (kind.letter === "?" ? "Q" : kind.letter);
const valueOf = (item, dimension) => index.values[dimension][item[dimension]];

function verdictOf(one) {
  return classOf(one).name === "inconclusive" ? "inconclusive" : VERDICTS[one.ok];
}

// How much a case wants to be looked at: unexpected first, then faults, then what has no result.
function urgency(item) {
  const one = last(item);
  const name = classOf(one).name;
  if (item.worse) return 5;
  if (name === "hypervisor-fault") return 4;
  if (one.ok === 0) return 3;
  if (name === "inconclusive") return 2;
  return item.change ? 1 : 0;
}

function details(one) {
  try {
    return JSON.parse(lines[one.line]);
  } catch (error) {
    return null;
  }
}

// What a search looks in, made when somebody searches.
const haystacks = [];
function haystack(item) {
  if (haystacks[item.number] === undefined) {
    const words = [item.name];
    for (const dimension of DIMENSIONS) words.push(valueOf(item, dimension));
    for (const one of [item.now, item.was]) {
      const found = one && details(one);
      if (!found) continue;
      words.push(classOf(one).title, found.reason, found.syndrome || "", ...found.syndrome_words, ...found.console);
      for (const seen of [...found.evidence, ...found.timeline]) words.push(seen.text);
    }
    haystacks[item.number] = words.join("\n").toLowerCase();
  }
  return haystacks[item.number];
}

// Control characters and those that turn the direction of writing are shown, not obeyed.
function plain(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

// Makes an element; strings become text.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(plain(child)));
  }
  return node;
}

function tile(kind, tag = "span", attributes = {}, ...more) {
  return el(tag, { class: "tile " + styleOf(kind), ...attributes }, kind.letter, ...more);
}

function say(text) {
  document.getElementById("say").textContent = plain(text);
}

async function copy(text, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch (error) {
    const area = el("textarea", { style: "position:fixed;opacity:0" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  button.textContent = done ? "Copied" : "Select it";
  say(done ? "Copied" : "It could not be copied");
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function commandLine(text) {
  const button = el("button", { class: "button", type: "button", onclick: () => copy(text, button) }, "Copy");
  return el("div", { class: "command" }, el("code", {}, text), button);
}

function count(number, one, many) {
  return number.toLocaleString("en-US") + " " + (number === 1 ? one : many || one + "s");
}
