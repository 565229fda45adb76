"use strict";
// The gallery: which prompts, in which order, and a page of them at a time.
(() => {
  const PAGE = 20;
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const by = (id) => document.getElementById(id);
  const { models, scorers } = data;
  const controls = { text: by("text"), group: by("group"), a: by("a"), b: by("b"),
    scorer: by("scorer"), outcome: by("outcome"), order: by("order"), pair: by("pair") };
  let chosen = []; // places of the prompts that are shown, in their order
  let current = -1; // which of them the keys are at
  let page = 0;

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const known = (values) => values.filter((value) => value !== null);
  const mean = (values) => {
    const there = known(values);
    return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
  };
  const readable = (url) => {
    try {
      return decodeURI(url);
    } catch { // a file's name that is not UTF-8
      return url;
    }
  };
  const counted = (number) => number.toLocaleString("en");
  const digits = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))));

  // How a prompt goes for the models A and B: every image of the one meets every one of the other.
  const duel = (scorer, prompt) => {
    const one = known(data.scores[controls.a.value][scorer][prompt]);
    const other = known(data.scores[controls.b.value][scorer][prompt]);
    if (!one.length || !other.length) return null;
    let won = 0, lost = 0;
    for (const x of one) for (const y of other) {
      won += x > y;
      lost += x < y;
    }
    const met = one.length * other.length;
    return { winner: Math.sign(won - lost), share: (won - lost) / met, margin: mean(one) - mean(other) };
  };
  const split = (prompt) => {
    const winners = scorers.map((_, scorer) => duel(scorer, prompt)).filter(Boolean);
    return new Set(winners.map((found) => found.winner)).size > 1;
  };

  const ORDERS = {
    disagreement: (prompt) => data.disagreement[prompt],
    won: (prompt, found) => found && found.share,
    a: (prompt, found) => found && found.margin,
    b: (prompt, found) => found && -found.margin,
    clear: (prompt, found) => found && Math.abs(found.margin),
    close: (prompt, found) => found && -Math.abs(found.margin),
  };

  const choose = () => {
    const words = controls.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [label, value] = controls.group.value ? JSON.parse(controls.group.value) : [];
    const group = label === undefined ? null : new Set(data.labels[label][value]);
    const scorer = Number(controls.scorer.value);
    const outcome = controls.outcome.value;
    const counts = { "1": 0, "0": 0, "-1": 0 };
    const found = [];
    for (let prompt = 0; prompt < data.prompts.length; prompt++) {
      if (group && !group.has(prompt)) continue;
      const text = `${data.keys[prompt]} ${data.prompts[prompt]}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
      const result = duel(scorer, prompt);
      if (result) counts[result.winner] += 1;
      if (outcome === "split" && !split(prompt)) continue;
      if (outcome && outcome !== "split" && !(result && result.winner === Number(outcome))) continue;
      const order = ORDERS[controls.order.value];
      found.push([prompt, order ? order(prompt, result) : 0]);
    }
    // Highest first; prompts without a number come last.
    found.sort((one, other) => (one[1] === null) - (other[1] === null) || other[1] - one[1]);
    chosen = found.map((pair) => pair[0]);
    const a = models[controls.a.value], b = models[controls.b.value];
    const wins = controls.a.value === controls.b.value ? "" :
      `; by ${scorers[scorer]}, ${a} wins ${counted(counts["1"])}, ties ${counted(counts["0"])}, loses ${counted(counts["-1"])} against ${b}`;
    by("status").textContent = `${counted(chosen.length)} of ${counted(data.prompts.length)} prompts${wins}`;
    current = -1;
    page = 0;
    draw();
  };

  const scoreList = (model, prompt, best, pick) => {
    const list = element("dl");
    scorers.forEach((name, scorer) => {
      const value = pick(data.scores[model][scorer][prompt]);
      const entry = element("dd", {}, digits(value));
      const top = best[scorer];
      if (top !== null && value === top.value) {
        if (!top.tied) entry.classList.add("best");
        entry.append(element("span", {}, top.tied ? " tie" : " best"));
      }
      list.append(element("div", {}, element("dt", {}, name), entry));
    });
    return list;
  };
  const picture = (model, prompt, number) => {
    const url = data.pictures[model][prompt][number];
    const reason = data.reasons[`${model} ${prompt} ${number}`];
    const figure = element("figure");
    if (url !== null) {
      const alt = `${models[model]}, image ${number + 1}: ${data.prompts[prompt]}`;
      const image = element("img", { loading: "lazy", decoding: "async", alt, src: url });
      image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 160));
      image.addEventListener("error", () => {
        figure.prepend(element("p", { class: "reason" }, `cannot be shown here: ${readable(url)}`));
        image.closest("a").remove();
      });
      figure.append(element("a", { href: url }, image));
    }
    if (reason) figure.append(element("p", { class: "reason" }, reason));
    return figure;
  };
  const block = (model, prompt, best) => {
    const count = data.pictures[model][prompt].length;
    const letters = ["a", "b"].filter((name) => Number(controls[name].value) === model);
    const badge = models.length > 1 ? letters.map((name) => element("span", { class: "badge" }, name.toUpperCase())) : [];
    const made = element("div", { class: "block" }, element("h4", {}, ...badge, models[model]));
    const pictures = element("div", { class: count > 1 ? "several" : "single" });
    for (let number = 0; number < count; number++) {
      const figure = picture(model, prompt, number);
      if (count > 1) {
        figure.append(scoreList(model, prompt, scorers.map(() => null), (scores) => scores[number]));
      }
      pictures.append(figure);
    }
    made.append(pictures);
    if (count > 1) made.append(element("p", { class: "soft" }, `mean of ${count}`));
    made.append(scoreList(model, prompt, best, mean));
    return made;
  };
  const verdicts = (prompt) => {
    const list = element("ul", { class: "verdicts" });
    if (controls.a.value === controls.b.value) return list;
    scorers.forEach((name, scorer) => {
      const found = duel(scorer, prompt);
      const ahead = found && models[controls[found.margin > 0 ? "a" : "b"].value];
      const says = !found ? "no score" : found.margin === 0 ? "tie" : `${ahead} by ${digits(Math.abs(found.margin))}`;
      list.append(element("li", {}, element("span", { class: "soft" }, `${name}: `), says));
    });
    const disagreement = data.disagreement[prompt];
    if (disagreement !== null) {
      list.append(element("li", { class: "soft" }, `disagreement ${disagreement.toFixed(2)}`));
    }
    return list;
  };
  const article = (place) => {
    const prompt = chosen[place];
    const made = element("article", { tabindex: "0", "aria-labelledby": `prompt-${prompt}`,
      "aria-posinset": place + 1, "aria-setsize": chosen.length, "data-place": place });
    const labels = Object.values(data.labels).flatMap((values) =>
      Object.keys(values).filter((value) => values[value].includes(prompt)));
    made.append(element("h3", { id: `prompt-${prompt}` }, data.prompts[prompt]),
      element("p", { class: "soft" }, [data.keys[prompt], ...labels].join(" · ")), verdicts(prompt));
    const best = scorers.map((_, scorer) => {
      const means = known(models.map((_, model) => mean(data.scores[model][scorer][prompt])));
      const top = Math.max(...means);
      const tied = means.filter((value) => value === top).length > 1;
      return means.length > 1 && Math.min(...means) < top ? { value: top, tied } : null;
    });
    const shown = models.map((_, model) => model).filter((model) => !controls.pair.checked ||
      [controls.a.value, controls.b.value].includes(String(model)));
    const many = shown.some((model) => data.pictures[model][prompt].length > 1);
    made.append(element("div", { class: many ? "blocks many" : "blocks" }, ...shown.map((model) => block(model, prompt, best))));
    return made;
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    const places = chosen.slice(page * PAGE, (page + 1) * PAGE).map((_, place) => page * PAGE + place);
    by("prompts").replaceChildren(...(places.length ? places.map(article) :
      [element("p", { class: "nothing" }, "No prompt is like this.")]));
    by("page").textContent = `Page ${page + 1} of ${pages}`;
    by("previous").disabled = page === 0;
    by("next").disabled = page === pages - 1;
  };
  const go = (place) => {
    if (!chosen.length) return;
    current = Math.min(Math.max(place, 0), chosen.length - 1);
    const wanted = Math.floor(current / PAGE);
    if (wanted !== page) {
      page = wanted;
      draw();
    }
    const found = by("prompts").querySelector(`[data-place="${current}"]`);
    found.focus({ preventScroll: true });
    found.scrollIntoView({ block: "start" });
  };

  const fill = (select, names) => names.forEach((name, place) =>
    select.append(element("option", { value: place }, name)));
  fill(controls.a, models);
  fill(controls.b, models);
  fill(controls.scorer, scorers);
  controls.b.value = String(Math.min(1, models.length - 1));
  for (const [label, values] of Object.entries(data.labels)) {
    controls.group.append(element("optgroup", { label }, ...Object.entries(values).map(([value, places]) =>
      element("option", { value: JSON.stringify([label, value]) }, `${value} (${places.length})`))));
  }
  for (const control of Object.values(controls)) {
    control.addEventListener(control === controls.text ? "input" : "change", choose);
  }
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  by("previous").addEventListener("click", () => go((page - 1) * PAGE));
  by("next").addEventListener("click", () => go((page + 1) * PAGE));
  by("prompts").addEventListener("focusin", (event) => {
    const inside = event.target.closest("article");
    if (inside) current = Number(inside.dataset.place);
  });
  for (const link of document.querySelectorAll("a[data-scorer]")) {
    link.addEventListener("click", () => {
      for (const name of ["a", "b", "scorer"]) controls[name].value = link.dataset[name];
      controls.outcome.value = "";
      controls.order.value = "won";
      choose();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, select")) {
      if (event.key === "Escape") {
        if (event.target === controls.text && controls.text.value) {
          controls.text.value = "";
          choose();
        }
        event.preventDefault();
        go(Math.max(current, 0));
      }
      return;
    }
    if (event.key === "/") controls.text.focus();
    else if (event.key === "j") go(current + 1);
    else if (event.key === "k") go(current - 1);
    else if (event.target.closest(".scroll")) return; // arrows scroll what is wide
    else if (event.key === "ArrowRight") go(current + 1);
    else if (event.key === "ArrowLeft") go(current - 1);
    else return;
    event.preventDefault();
  });
  choose();
})();
