// SPDX-License-Identifier: MIT OR Apache-2.0
// The page of one case: what was done, what became of it, how one knows, and how to see it again.

const panel = document.getElementById("panel");
let opener = null;
let kept = items;

function time(ns) {
  if (ns === null || ns === undefined) return "";
  return (ns / 1e6).toLocaleString("en-US", { minimumFractionDigits: 3, maximumFractionDigits: 3 }) + " ms";
}

function later(ns) {
  if (ns >= 1e9) return "+" + (ns / 1e9).toFixed(2) + " s";
  if (ns >= 1e6) return "+" + (ns / 1e6).toFixed(2) + " ms";
  return ns >= 1e3 ? "+" + (ns / 1e3).toFixed(2) + " \u00b5s" : "+" + ns + " ns";
}

function who(source) {
  return el("td", { class: "who" }, el("span", { class: source }, source));
}

function evidenceTable(list) {
  const rows = list.map((seen) => el("tr", {}, el("td", { class: "t" }, time(seen.t_ns)), who(seen.source), el("td", {}, seen.text)));
  return el("table", { class: "events" }, el("tbody", {}, rows));
}

function timelineTable(list) {
  let before = null;
  const rows = list.map((event) => {
    const delta = before === null ? "" : later(event.t_ns - before);
    before = event.t_ns;
    return el("tr", {}, el("td", { class: "t" }, time(event.t_ns)), el("td", { class: "t" }, delta), who(event.source), el("td", {}, event.text));
  });
  return el("table", { class: "events timeline" }, el("tbody", {}, rows));
}

// The fields of an ESR that an SError's syndrome has.
function syndromeFields(text) {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) return null;
  const ec = Math.floor(value / 0x4000000) & 0x3f;
  if (ec !== 0x2f && value >= 0x2000000) return null;
  const iss = value % 0x2000000;
  const fields = [];
  const add = (name, high, low) => fields.push([name, high, low, Math.floor(value / 2 ** low) % 2 ** (high - low + 1)]);
  if (value >= 0x2000000) { add("EC", 31, 26); add("IL", 25, 25); }
  add("IDS", 24, 24);
  if (iss >= 0x1000000) add("implementation defined", 23, 0);
  else { add("WnRV..", 23, 14); add("IESB", 13, 13); add("AET", 12, 10); add("EA", 9, 9); add("res0", 8, 6); add("DFSC", 5, 0); }
  const shown = fields.filter(([name]) => name !== "res0" && name !== "WnRV..");
  const bits = shown.map(([, high, low]) => el("th", {}, high === low ? String(high) : high + ":" + low));
  const names = shown.map(([name]) => el("th", {}, name));
  const aetCounts = iss < 0x1000000 && iss % 64 === 0x11;
  const word = (name, number) => (name === "AET" && aetCounts ? " " + AET[number] : "");
  const values = shown.map(([name, , , number]) => el("td", {}, "0x" + number.toString(16) + word(name, number)));
  return el("table", { class: "fields" }, el("tbody", {}, el("tr", {}, names), el("tr", {}, values), el("tr", {}, bits)));
}

function tree(value) {
  if (value === null || typeof value !== "object") return document.createTextNode(plain(value === null ? "\u2013" : value));
  if (Array.isArray(value) && value.every((one) => typeof one !== "object" || one === null)) {
    return document.createTextNode(plain(value.join(", ")));
  }
  const list = el("dl", {});
  for (const [name, inner] of Object.entries(value)) list.append(el("dt", {}, name), el("dd", {}, tree(inner)));
  return list;
}

function pairs(list) {
  const node = el("dl", {});
  for (const [name, value] of list) node.append(el("dt", {}, name), el("dd", {}, value));
  return node;
}

function verdictNode(one, found) {
  const kind = classOf(one);
  const expected = (found.expected || []).map((name) => index.classes.find((other) => other.name === name).title).join(" or ");
  const words = verdictOf(one) === "unexpected" ? el("span", { class: "bad" }, "expected: " + expected)
    : el("span", { class: "soft" }, verdictOf(one) + (verdictOf(one) === "inconclusive" && expected ? ", expected: " + expected : ""));
  return el("div", { class: "verdict" }, tile(kind, "span", {}, el("span", {}, kind.title)), words);
}

function caseNode(item, one) {
  const found = details(one);
  if (!found) return el("p", {}, "The line of this case cannot be read.");
  const node = el("div", {}, verdictNode(one, found), el("p", { class: "reason" }, found.reason));
  const part = (title, ...content) => node.append(el("h4", {}, title), ...content);
  part("Repeat it", commandLine(found.command));
  part("Case", pairs([["guest", found.guest], ["error", found.error], ["moment", found.moment], ["policy", found.policy],
    ["firmware", found.firmware], ["RAS", found.ras_visible ? "visible to the guest" : "hidden from the guest"],
    ["repetition", String(found.repetition)], ["reset by", found.reset], ["took", found.wall_ms.toLocaleString("en-US") + " ms"]]));
  if (found.evidence.length) part("Evidence", evidenceTable(found.evidence));
  if (found.timeline.length) part("Timeline", timelineTable(found.timeline));
  if (found.syndrome || found.syndrome_words.length) {
    const words = found.syndrome_words.map((word) => el("li", {}, word));
    part("Syndrome", el("p", { class: "mono" }, found.syndrome || "none was given to the guest"),
      found.syndrome ? syndromeFields(found.syndrome) || "" : "", el("ul", { class: "words" }, words));
  }
  if (found.record) part("Record", tree(found.record));
  if (found.console.length) part("Console, the last lines", el("pre", { class: "console", tabindex: "0" }, found.console.map((line) => plain(line)).join("\n")));
  return node;
}

// Other cases of the same error and moment, to go to.
function siblings(item) {
  const others = items.filter((other) => other.error === item.error && other.moment === item.moment && other.guest === item.guest);
  if (others.length < 2 || others.length > 60) return null;
  const links = others.map((other) => tile(classOf(last(other)), "a", {
    href: fragment({ case: other.name }), title: plain(other.name + ": " + classOf(last(other)).title),
    "aria-label": plain(other.name), "aria-current": other === item ? "true" : false,
  }));
  return el("div", { class: "siblings" }, el("span", {}, "Same error and moment:"), links);
}

function drawPanel(item) {
  const list = kept.includes(item) ? kept : items;
  const place = list.indexOf(item);
  const go = (step) => () => { const next = list[place + step]; if (next) openCase(next, null); };
  const previous = el("button", { class: "button", type: "button", id: "previous", disabled: place <= 0, onclick: go(-1) }, "\u2039 Previous");
  const next = el("button", { class: "button", type: "button", id: "next", disabled: place + 1 >= list.length, onclick: go(1) }, "Next \u203a");
  const close = el("button", { class: "button", type: "button", id: "close", "aria-label": "Close the case", onclick: closeCase }, "Close \u00d7");
  const bar = el("div", { class: "bar-top" }, previous, next,
    el("span", { class: "count" }, (place + 1).toLocaleString("en-US") + " of " + list.length.toLocaleString("en-US")), close);
  const name = el("h2", { id: "case-name", tabindex: "-1" }, item.name);
  panel.classList.toggle("two", comparing);
  const none = () => el("p", { class: "soft" }, "This run has no such case.");
  const body = comparing
    ? el("div", { class: "columns" }, el("div", {}, el("h3", {}, "Before"), item.was ? caseNode(item, item.was) : none()),
      el("div", {}, el("h3", {}, "After"), item.now ? caseNode(item, item.now) : none()))
    : caseNode(item, item.now);
  panel.replaceChildren(bar, name, siblings(item) || "", body);
  panel.scrollTop = 0;
  panel.hidden = false;
  document.body.classList.add("case");
  for (const node of document.querySelectorAll(".cell.open")) node.classList.remove("open");
  for (const grid of grids) {
    for (const cell of grid.rows.flat()) if (cell && cell.members.includes(item)) cell.node.classList.add("open");
  }
  return name;
}

function openCase(item, from) {
  if (from) opener = from;
  state.case = item.name;
  keepState(true);
  drawPanel(item).focus({ preventScroll: true });
}

function closeCase() {
  state.case = "";
  keepState(true);
  hidePanel();
}

// It covers what is behind it: Tab goes round in it, and Escape leads back.
function goRound(event) {
  const stops = [...panel.querySelectorAll("a[href], button:not(:disabled), [tabindex='0']")];
  const [end, next] = event.shiftKey ? [stops[0], stops[stops.length - 1]] : [stops[stops.length - 1], stops[0]];
  if (document.activeElement !== end) return;
  event.preventDefault();
  next.focus();
}

function hidePanel() {
  if (panel.hidden) return;
  const open = document.querySelector(".cell.open");
  panel.hidden = true;
  document.body.classList.remove("case");
  for (const node of document.querySelectorAll(".cell.open")) node.classList.remove("open");
  const back = opener && opener.isConnected ? opener : open;
  if (back) back.focus();
  opener = null;
}
