// SPDX-License-Identifier: MIT OR Apache-2.0
// What is filtered and which case is open: all of it is in the fragment of the address, so that a
// link leads to what one sees.

const KEYS = [...DIMENSIONS, "verdict", "change", "q", "case"];
const state = { classes: new Set() };

function readState() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  state.classes = new Set((parameters.get("class") || "").split(",").filter(Boolean));
  for (const key of KEYS) state[key] = parameters.get(key) || "";
}

function fragment(changes = {}) {
  const wanted = { ...state, ...changes };
  const parameters = new URLSearchParams();
  if (state.classes.size) parameters.set("class", [...state.classes].join(","));
  for (const key of KEYS) if (wanted[key]) parameters.set(key, wanted[key]);
  return "#" + parameters.toString().replace(/%2F/g, "/").replace(/%2C/g, ",");
}

// A case opened is a step that `back` takes back; a filter is none.
function keepState(step) {
  if (fragment() === (location.hash || "#")) return;
  history[step ? "pushState" : "replaceState"](null, "", fragment());
}

function isFiltering() {
  return state.classes.size !== 0 || KEYS.some((key) => key !== "case" && state[key]);
}

function matches(item) {
  if (state.classes.size) {
    const kept = [item.now, item.was].some((one) => one && state.classes.has(classOf(one).name));
    if (!kept) return false;
  }
  for (const dimension of DIMENSIONS) {
    if (state[dimension] && state[dimension] !== valueOf(item, dimension)) return false;
  }
  if (state.verdict && state.verdict !== verdictOf(last(item))) return false;
  if (state.change === "worse" && !item.worse) return false;
  if (state.change === "changed" && !item.change) return false;
  if (["new", "gone", "class", "ok"].includes(state.change) && state.change !== item.change) return false;
  if (state.q) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.every((word) => haystack(item).includes(word))) return false;
  }
  return true;
}

function choice(label, key, options) {
  const select = el("select", { name: key });
  select.append(el("option", { value: "" }, "all"));
  for (const [value, text] of options) select.append(el("option", { value }, text));
  select.value = state[key];
  select.addEventListener("change", () => {
    state[key] = select.value;
    keepState(false);
    applyFilters();
  });
  return el("label", {}, label, select);
}

function drawFilters() {
  const form = document.getElementById("filters");
  form.replaceChildren();
  form.addEventListener("submit", (event) => event.preventDefault());
  const text = el("input", { type: "search", name: "q", placeholder: "name, reason, console…", autocomplete: "off" });
  let timer = 0;
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      state.q = text.value.trim();
      keepState(false);
      applyFilters();
    }, 120);
  });
  form.append(el("label", {}, "Text", text));
  const verdicts = [...new Set(items.map((item) => verdictOf(last(item))))];
  if (verdicts.length > 1) form.append(choice("Result", "verdict", verdicts.map((one) => [one, one])));
  if (comparing) {
    const kinds = [["changed", "any change"], ["worse", "worse"], ["class", "another class"],
      ["ok", "judged otherwise"], ["new", "new"], ["gone", "gone"]];
    form.append(choice("Change", "change", kinds));
  }
  const labels = { guest: "Guest", error: "Error", moment: "Moment", policy: "Policy", firmware: "Firmware", ras: "RAS" };
  for (const dimension of DIMENSIONS) {
    const values = index.values[dimension];
    if (values.length > 1) form.append(choice(labels[dimension], dimension, values.map((one) => [one, one])));
  }
  const clear = el("button", { class: "button", type: "button", id: "clear", onclick: clearFilters }, "Show all");
  form.append(clear, el("output", { id: "shown" }));
}

function clearFilters() {
  state.classes.clear();
  for (const key of KEYS) if (key !== "case") state[key] = "";
  keepState(false);
  applyFilters();
}

// Brings what one can set in line with the state.
function showState() {
  for (const control of document.getElementById("filters").elements) {
    if (control.name && control !== document.activeElement) control.value = state[control.name];
  }
  document.getElementById("clear").disabled = !isFiltering();
  for (const button of document.querySelectorAll("#legend [data-class]")) {
    button.setAttribute("aria-pressed", state.classes.has(button.dataset.class));
  }
}
