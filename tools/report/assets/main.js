// SPDX-License-Identifier: MIT OR Apache-2.0
// Draws the page, and keeps it in line with its address.

// How many cases are listed before one asks for more.
const LISTED = 5;

function figures() {
  const total = items.length;
  const list = el("ul", { class: "figures" });
  const add = (number, words, bad) => list.append(el("li", { class: bad && number ? "bad" : "" }, el("b", {}, number.toLocaleString("en-US")), words));
  if (comparing) {
    add(items.filter((item) => item.worse).length, "worse", true);
    const kinds = [["class", "of another class"], ["ok", "judged otherwise"], ["new", "new"], ["gone", "gone"]];
    for (const [kind, words] of kinds) add(items.filter((item) => item.change === kind).length, words);
    add(items.filter((item) => !item.change).length, "the same");
    return list;
  }
  const by = (verdict) => items.filter((item) => verdictOf(item.now) === verdict).length;
  add(by("unexpected"), "unexpected", true);
  if (by("inconclusive")) add(by("inconclusive"), "inconclusive");
  add(by("as expected"), "as expected");
  if (by("no expectation")) add(by("no expectation"), "without expectation");
  list.append(el("li", { class: "soft" }, "of " + count(total, "case") + (run.cases > total ? ", " + run.cases.toLocaleString("en-US") + " planned" : "")));
  return list;
}

function drawHead() {
  const head = document.getElementById("head");
  const guests = [...new Set(run.guests.map((guest) => guest.what))].join("; ");
  head.append(el("h1", {}, comparing ? run.plan + ", two runs compared" : run.plan),
    el("p", { class: "soft" }, guests + (run.shard ? " \u00b7 shard " + run.shard.index + " of " + run.shard.count : "") + " \u00b7 " + run.started));
  head.append(figures());
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  index.classes.forEach((kind, place) => {
    const number = items.filter((item) => item.now && item.now.class === place).length;
    if (number) bar.append(el("span", { class: styleOf(kind), style: "flex:" + number, title: kind.title + ": " + number }));
  });
  head.append(bar);
  const notes = document.getElementById("notes");
  index.runs.forEach((one, place) => {
    for (const note of one.notes) notes.append(el("p", {}, (comparing ? (place ? "After: " : "Before: ") : "") + note));
  });
  if (index.differences.length) notes.append(el("p", {}, "The runs differ in: " + index.differences.join(", ")));
}

function drawLegend() {
  const section = document.getElementById("legend");
  const list = el("ul", {});
  index.classes.forEach((kind, place) => {
    const number = items.filter((item) => item.now && item.now.class === place).length;
    const button = el("button", { type: "button", "data-class": kind.name, "aria-pressed": "false", class: number ? "" : "none", title: kind.definition },
      tile(kind, "span", { "aria-hidden": "true" }), el("b", {}, kind.title), el("span", {}, number.toLocaleString("en-US")), el("small", {}, kind.definition));
    button.addEventListener("click", () => {
      if (!state.classes.delete(kind.name)) state.classes.add(kind.name);
      keepState(false);
      applyFilters();
    });
    list.append(el("li", {}, button));
  });
  const more = el("button", { type: "button", class: "button more", onclick: () => { section.classList.add("full"); more.remove(); } }, "What the classes mean");
  section.append(list, more);
}

function worthNode(item) {
  const one = last(item);
  const found = details(one) || { reason: "", expected: [] };
  const title = (name) => index.classes.find((kind) => kind.name === name).title;
  const is = item.now ? classOf(item.now).title : "gone";
  const words = comparing ? (item.was ? classOf(item.was).title : "new") + " \u2192 " + is
    : is + (found.expected && found.expected.length ? ", expected: " + found.expected.map(title).join(" or ") : "");
  return el("li", {}, el("a", { href: "#case=" + encodeURIComponent(item.name) }, tile(classOf(one), "span", { "aria-hidden": "true" }),
    el("span", { class: "name" }, item.name), el("span", { class: "why" }, el("b", {}, words), item.now ? el("span", { class: "soft" }, " \u00b7 " + found.reason) : "")));
}

function drawWorth() {
  const list = items.filter((item) => urgency(item) > (comparing ? 0 : 1))
    .filter((item) => !comparing || item.change)
    .sort((one, other) => urgency(other) - urgency(one) || one.number - other.number);
  if (!list.length) return;
  const section = document.getElementById("worth");
  const shown = el("ol", {}, list.slice(0, LISTED).map(worthNode));
  section.append(el("h2", {}, comparing ? "Changes, the worse first" : "Look at these first"), shown);
  if (list.length <= LISTED) return;
  const rest = list.slice(LISTED);
  const more = el("button", { class: "button more", type: "button" });
  const words = () => { more.textContent = "Show " + (rest.length > 100 ? "100 of " : "") + rest.length + " more"; };
  words();
  more.addEventListener("click", () => {
    shown.append(...rest.splice(0, 100).map(worthNode));
    if (rest.length) words(); else more.remove();
  });
  section.append(more);
}

function factsOf(one, title) {
  const facts = [["Firebreak", one.firebreak + (one.commit ? " (" + one.commit.slice(0, 12) + ")" : "")], ["QEMU", one.qemu + ", CPU " + one.cpu]];
  for (const guest of one.guests) facts.push(["Guest " + guest.name, guest.what + ", SHA-256 " + guest.sha256.slice(0, 16) + "\u2026"]);
  facts.push(["Plan", one.plan + ", SHA-256 " + one.plan_sha256.slice(0, 16) + "\u2026"], ["Seed", one.seed],
    ["Part", one.shard ? "shard " + one.shard.index + " of " + one.shard.count : "the whole plan"], ["Started", one.started],
    ["Took", one.end ? one.end.wall_s.toLocaleString("en-US", { maximumFractionDigits: 1 }) + " s" : "it did not end"],
    ["Cases", one.done.toLocaleString("en-US") + " of " + one.cases.toLocaleString("en-US")]);
  if (one.end) facts.push(["Interrupted", one.end.interrupted ? "yes" : "no"]);
  const list = el("dl", {});
  for (const [name, value] of facts) list.append(el("dt", {}, name), el("dd", {}, value));
  list.append(el("dt", {}, "Command"), el("dd", {}, commandLine(one.command)));
  return el("div", {}, el("h2", {}, title), list);
}

function drawFacts() {
  const titles = comparing ? ["Before", "After"] : ["The run"];
  document.getElementById("facts").append(el("div", { class: "two" }, index.runs.map((one, place) => factsOf(one, titles[place]))));
}

function applyFilters() {
  kept = isFiltering() ? items.filter(matches) : items;
  filterMatrix(new Set(kept));
  showState();
  const words = isFiltering() ? kept.length.toLocaleString("en-US") + " of " + count(items.length, "case") : count(items.length, "case");
  document.getElementById("shown").textContent = words;
}

function applyState() {
  readState();
  applyFilters();
  const item = byName.get(state.case);
  if (item) drawPanel(item).focus({ preventScroll: true });
  else hidePanel();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && !panel.hidden) {
    event.preventDefault();
    closeCase();
  } else if (event.key === "Tab" && !panel.hidden) {
    goRound(event);
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    document.querySelector("#filters input").focus();
  } else if (!panel.hidden && !typing && (event.key === "j" || event.key === "k")) {
    document.getElementById(event.key === "j" ? "next" : "previous").click();
  }
});
// A link in the list of what to look at keeps the filters.
document.getElementById("worth").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  openCase(byName.get(decodeURIComponent(link.getAttribute("href").slice(6))), link);
});
window.addEventListener("hashchange", applyState);
window.addEventListener("popstate", applyState);

readState();
drawHead();
drawLegend();
drawWorth();
drawFilters();
drawMatrix();
drawFacts();
applyState();
document.documentElement.dataset.drawn = "yes";
