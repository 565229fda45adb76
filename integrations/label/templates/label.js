"use strict";
const by = (id) => document.getElementById(id);
const STORED = "stablepref-annotator";

let annotator = "";
let screen = null; // what the server shows: token, prompt, images, done, total
let picked = []; // of a group: lists of places, best first
let tied = false; // whether the next pick has the same place as the last
let ready = false; // whether the pictures are there, so that a choice is one of these pictures
let since = 0;

const post = async (path, body) => {
  const answer = await fetch(path, {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : "the server refused this");
  return found;
};

let hiding = 0;
const note = (text) => {
  by("note").textContent = text;
  by("note").hidden = !text;
  clearTimeout(hiding);
  if (text) hiding = setTimeout(() => note(""), 6000);
};

const show = (id) => {
  for (const one of ["start", "ask", "end"]) by(one).hidden = one !== id;
};

const make = (tag, text, parent, properties = {}) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.textContent = text;
  parent.append(made);
  return made;
};

const pair = () => screen.images.length === 2;

const button = (text, key, shown) => {
  const made = make("button", `${text} `, by("answers"), {type: "button"});
  made.dataset.key = key;
  make("kbd", shown, made);
};

const drawAnswers = () => {
  by("answers").replaceChildren();
  if (pair()) {
    button("First is better", "1", "1 ←");
    button("Equally good", "t", "T ↓");
    button("Both are bad", "x", "X");
    button("Second is better", "2", "2 →");
  } else {
    button("Next ties with the last", "t", "T");
    button("The rest are equal", "Enter", "Enter");
    button("All equally good", "e", "E");
    button("All are bad", "x", "X");
  }
};

const ordinal = (place) => `${place}${["th", "st", "nd", "rd"][place] ?? "th"}`; // 1 to 9

const drawPicks = () => {
  const places = new Map();
  let place = 1;
  for (const tier of picked) {
    for (const one of tier) places.set(one, place);
    place += tier.length;
  }
  [...by("pictures").querySelectorAll("button")].forEach((one, index) => {
    one.querySelector(".place")?.remove();
    one.classList.toggle("chosen", places.has(index));
    if (!pair() && places.has(index)) make("span", ordinal(places.get(index)), one, {className: "badge place"});
  });
  if (pair()) return;
  const count = picked.flat().length;
  let text = "Choose the best picture, then the next best, and so on.";
  if (count) text = tied ? "Choose the picture that is as good as the last." : "Choose the next best picture.";
  by("hint").textContent = text;
};

const drawScreen = async (found) => {
  screen = found;
  picked = [];
  tied = ready = false;
  if (found.note) note(found.note);
  if (!found.token) {
    by("sum").textContent = `${annotator}: ${found.done} ${found.done === 1 ? "answer" : "answers"}.`;
    show("end");
    by("done").focus();
    ready = true;
    return;
  }
  const items = await Promise.all(found.images.map(async (source, index) => {
    const item = document.createElement("li");
    const choice = make("button", "", item, {type: "button"});
    choice.dataset.key = String(index + 1);
    const image = make("img", "", choice, {src: source, alt: `Picture ${index + 1}`});
    make("span", index + 1, choice, {className: "badge"});
    try {
      await image.decode();
      image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 256);
    } catch {
      image.remove();
      make("span", "This picture cannot be shown: skip it.", choice, {className: "broken"});
    }
    return item;
  }));
  if (screen !== found) return; // something newer came meanwhile
  by("prompt").textContent = found.prompt;
  by("pictures").className = `n${items.length}`;
  by("pictures").replaceChildren(...items);
  by("hint").textContent = "";
  by("undo").disabled = !found.done;
  drawAnswers();
  drawPicks();
  show("ask");
  by("prompt").focus({preventScroll: true});
  since = performance.now();
  ready = true;
  by("whose").textContent = annotator;
  by("bar").max = found.total;
  by("bar").value = found.done;
  by("count").textContent = `${found.done} of ${found.total}`;
};

const send = async (path, body) => {
  ready = false;
  try {
    await drawScreen(await post(path, {annotator, ...body}));
  } catch (error) {
    note(error instanceof TypeError ? "The server does not answer; your last choice may not be kept." : error.message);
    ready = screen?.token != null;
  }
};

const answer = (kind, tiers) => {
  const ranks = [];
  let place = 1;
  for (const tier of tiers) {
    for (const one of tier) ranks[one] = place;
    place += tier.length;
  }
  const seconds = (performance.now() - since) / 1000;
  return send("answer", {token: screen.token, answer: kind, ranks, seconds});
};

const all = () => screen.images.map((_, index) => index);
const left = () => all().filter((one) => !picked.flat().includes(one));

const finish = () => {
  const rest = left();
  const tiers = rest.length ? [...picked, rest] : picked;
  return answer(tiers.length > 1 ? "ranked" : "tie", tiers);
};

const choose = (index) => {
  if (!left().includes(index)) return;
  if (tied && picked.length) picked.at(-1).push(index);
  else picked.push([index]);
  tied = false;
  drawPicks();
  const rest = left();
  if (pair() || !rest.length) finish();
  else if (rest.length === 1) by("hint").textContent = "Enter: the last picture comes last.";
};

const press = (key) => {
  if (!ready) return;
  if (by("ask").hidden) {
    if (key === "u" && !by("end").hidden) send("undo", {});
    return;
  }
  if (/^[1-9]$/.test(key)) choose(Number(key) - 1);
  else if (key === "ArrowLeft" && pair()) choose(0);
  else if (key === "ArrowRight" && pair()) choose(1);
  else if ((key === "t" || key === "ArrowDown") && pair()) answer("tie", [all()]);
  else if (key === "t" && picked.length) { tied = !tied; drawPicks(); }
  else if (key === "e" && !pair()) answer("tie", [all()]);
  else if (key === "Enter" && !pair() && picked.length) finish();
  else if (key === "x") answer("bad", [all()]);
  else if (key === "s") answer("skip", []);
  else if (key === "u" && picked.length) { picked.at(-1).pop(); picked = picked.filter((tier) => tier.length); tied = false; drawPicks(); }
  else if (key === "u") send("undo", {});
};

const begin = (name) => {
  annotator = name.trim();
  if (!annotator) return;
  sessionStorage.setItem(STORED, annotator);
  send("next", {});
};

const start = async () => {
  sessionStorage.removeItem(STORED);
  show("start");
  by("names").replaceChildren();
  by("name").focus();
  try {
    const {annotators} = await post("annotators", {});
    by("known").hidden = !Object.keys(annotators).length;
    for (const [name, count] of Object.entries(annotators)) {
      const item = make("li", "", by("names"));
      const choice = make("button", name, item, {type: "button"});
      make("span", count, choice);
      choice.addEventListener("click", () => begin(name));
    }
  } catch (error) { note(error.message); }
};

by("who").addEventListener("submit", (event) => { event.preventDefault(); begin(by("name").value); });
by("whose").addEventListener("click", start);
document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key) press(key);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !by("start").hidden) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key === "Backspace" ? "u" : event.key;
  // A button that was reached by Tab is pressed by Enter, as everywhere.
  const held = event.target.closest("button, a");
  if (key === "Enter" && held && !(held.classList.contains("chosen") && screen?.token)) return;
  if (/^([1-9tesxu]|Arrow(Left|Right|Down)|Enter)$/.test(key)) {
    event.preventDefault();
    press(key);
  }
});

const before = sessionStorage.getItem(STORED);
if (before) begin(before); else start();
