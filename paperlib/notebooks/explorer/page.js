"use strict";
// Bokeh's figures call `explorer`; everything else is plain HTML. The state is in the address.
const explorer = (() => {
  const data = JSON.parse(document.getElementById("numbers").textContent);
  const $ = (id) => document.getElementById(id);
  const models = {}; // Bokeh's documents by the name of their figure
  const model = (figure, name) => models[figure].get_model_by_name(name);
  const closest = (list, value) => list.reduce(
    (best, each, i) => (Math.abs(each - value) < Math.abs(list[best] - value) ? i : best), 0);
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)}%`);
  const minus = (text) => String(text).replace("-", "−");
  const unpacked = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const made = (tag, text = "", set = {}) => Object.assign(document.createElement(tag), { textContent: text }, set);
  const state = { name: "mlp", variance: 0, depth: 0, measure: "r_squared" };
  const atlases = {};

  // ---- the digit that comes back ----

  const map = () => data.maps[state.name];
  const column = () => closest(map().sigma_w2, map().shown[state.variance]);
  const heat = () => model("map", `heat ${state.name}`);
  function value(measure, depth) { // of the map, at a depth from 1 on
    const found = heat().data_source.data[measure][0][(depth - 1) * map().sigma_w2.length + column()];
    return Number.isFinite(found) ? found : null;
  }
  function curveAt(label) { // of mean field, at the variance; null where there is none
    const curve = map().theory.find((each) => each.label.startsWith(label));
    return curve ? curve.y[closest(curve.x, map().shown[state.variance])] : null;
  }

  function drawTile(canvas, row, col) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(atlases[state.name], 28 * col, 28 * row, 28, 28, 0, 0, 28, 28);
  }

  function drawDigits() {
    const { shown, depths } = map();
    const [variance, depth] = [shown[state.variance], depths[state.depth]];
    drawTile($("original"), shown.length, 0);
    drawTile($("digit"), state.variance, state.depth);
    const words = `from depth ${depth}, σ_w² = ${variance}`;
    $("digit").setAttribute("aria-label", `the digit as it comes back ${words}`);
    $("digit-caption").textContent = words;
    const count = Math.min(10, depths.length), strip = $("strip");
    const places = Array.from({ length: count }, (_, i) => Math.round((i * (depths.length - 1)) / (count - 1)));
    strip.width = 30 * count - 2;
    places.forEach((place, i) => strip.getContext("2d").drawImage(
      atlases[state.name], 28 * place, 28 * state.variance, 28, 28, 30 * i, 0, 28, 28));
    $("strip-caption").textContent = `the same network, from depths ${places.map((place) => depths[place]).join(", ")}`;
  }

  function drawReadout() {
    const depth = map().depths[state.depth], rows = [];
    for (const [name, [title, unit]] of Object.entries(data.measures)) {
      const found = value(name, depth);
      rows.push([title, found === null ? "no value" : `${minus(found.toFixed(2))}${name === "r_squared" ? "" : ` ${unit}`}`]);
    }
    const wall = map().wall.y[column()];
    rows.push(["image lost from", wall === null ? `nowhere down to ${map().deepest}` : `depth ${Math.round(wall)}`]);
    const length = curveAt("ξ_c");
    if (length !== null) rows.push(["mean field", `ξ_c = ${length.toFixed(1)}`]);
    const { x, y, accuracy } = map().trained;
    const far = x.map((each, i) => Math.abs(Math.log(each / map().shown[state.variance])) + 0.5 * Math.abs(Math.log(y[i] / depth)));
    const best = closest(far, 0);
    rows.push(["nearest that was trained", `σ_w² ${x[best]}, depth ${y[best]}: ${percent(accuracy[best])} right`]);
    $("readout").replaceChildren(...rows.flatMap(([term, text]) => [made("dt", term), made("dd", text)]));
  }

  function drawCurve() {
    const depths = Array.from({ length: map().deepest }, (_, i) => i + 1), rsquared = state.measure === "r_squared";
    const values = depths.map((depth) => value(state.measure, depth) ?? NaN), seen = values.filter(Number.isFinite);
    model("curve", "line").data_source.data = { x: depths, y: values };
    const [low, high] = rsquared ? [-0.02, 1.02] : [Math.min(...seen), Math.max(...seen)];
    const margin = 0.05 * (high - low) || 1;
    Object.assign(model("curve", "curve").y_range, { start: rsquared ? low : low - margin, end: rsquared ? high : high + margin });
    const { x, y, accuracy } = map().trained, mine = x[closest(x, map().shown[state.variance])];
    const dots = x.map((_, i) => i).filter((i) => rsquared && x[i] === mine && Math.abs(mine - map().shown[state.variance]) <= 0.3);
    model("curve", "accuracies").data_source.data = { x: dots.map((i) => y[i]), y: dots.map((i) => accuracy[i]) };
    model("curve", "curve values").axis_label = data.measures[state.measure][0];
    model("curve", "at").location = map().depths[state.depth];
    const [length, six] = [curveAt("ξ_c"), curveAt("6 ξ_c")];
    Object.assign(model("curve", "xi"), { location: length ?? 0, visible: length !== null });
    Object.assign(model("curve", "six xi"), { location: six ?? 0, visible: six !== null });
    Object.assign(model("curve", "curve").x_range, { start: 0, end: map().deepest + 1 });
    const legend = [`<span><i style="border-color:#0072b2"></i>${data.measures[state.measure][0]}</span>`];
    if (dots.length) legend.push(`<span style="color:#a35200">▲ accuracy after training, σ_w² ${mine}</span>`);
    if (length !== null) legend.push('<span><i style="border-top-style:dashed"></i>ξ_c</span>');
    if (six !== null) legend.push("<span><i></i>6 ξ_c</span>");
    $("curve-legend").innerHTML = legend.join("");
    $("curve").setAttribute("aria-label", `${data.measures[state.measure][0]} over depth at σ_w² ${map().shown[state.variance]}`);
  }

  function show() { // what moves with every click
    const { shown, depths } = map(), [variance, depth] = [shown[state.variance], depths[state.depth]];
    $("variance").value = state.variance;
    $("depth").value = state.depth;
    $("variance-value").textContent = variance;
    $("depth-value").textContent = depth;
    model("map", "across").location = depth;
    model("map", "down").location = variance;
    model("map", "here").data_source.data = { x: [variance], y: [depth] };
    drawDigits();
    drawReadout();
    drawCurve();
    history.replaceState(null, "", `#${state.name}/${variance}/${depth}`);
  }

  function showMap() { // what moves with another network or measure
    const about = map(), [low, high] = about.scales[state.measure];
    for (const name of Object.keys(data.maps)) model("map", `heat ${name}`).visible = name === state.name;
    heat().glyph.image = { field: state.measure };
    Object.assign(model("map", "colours"), { low, high });
    const plot = model("map", "map"), step = about.sigma_w2[1] - about.sigma_w2[0];
    Object.assign(plot.x_range, { start: about.sigma_w2[0] - step / 2, end: about.sigma_w2.at(-1) + step / 2 });
    Object.assign(plot.y_range, { start: 0.5, end: about.deepest + 0.5 });
    const clean = (list) => list.map((each) => each ?? NaN);
    const theory = $("show-theory").checked ? about.theory : [];
    model("map", "theory").data_source.data = {
      x: theory.map((each) => clean(each.x)), y: theory.map((each) => clean(each.y)), dash: theory.map((each) => each.dash) };
    model("map", "wall").data_source.data = { x: about.wall.x, y: clean(about.wall.y) };
    const dots = $("show-trained").checked ? about.trained : { x: [], y: [], accuracy: [] };
    model("map", "trained").data_source.data = { x: dots.x, y: dots.y, accuracy: dots.accuracy };
    $("variance").max = about.shown.length - 1;
    $("depth").max = about.depths.length - 1;
    const [title, unit] = data.measures[state.measure];
    const style = { dashed: "dashed", dotted: "dotted", solid: "solid", dotdash: "dashed" };
    $("map-legend").innerHTML = [
      `<span>Colours: ${title}, ${unit}</span>`,
      `<span><i style="border-color:#d81b60"></i>image lost (R² &lt; ${data.lost})</span>`,
      ...theory.map((each) => `<span><i style="border-top-style:${style[each.dash]}"></i>${each.label}${each.dash === "dotdash" ? " (dash-dot)" : ""}</span>`),
      ...(dots.x.length ? ['<span><i class="dot" style="background:#000"></i><i class="dot"></i>trained networks: the lighter, the more accurate</span>'] : []),
    ].join("");
    $("map-about").textContent = `${about.about}. The digit is of the first of them. Trained networks: ${about.trained.about}.`;
    show();
  }

  function pick(variance, depth) { // of a click, a drag, an address; null: as it is
    if (variance !== null) state.variance = closest(map().shown, variance);
    if (depth !== null) state.depth = closest(map().depths, depth);
    show();
  }

  function choose(name, variance = map().shown[state.variance], depth = map().depths[state.depth]) {
    state.name = name;
    document.querySelector(`#architectures [value=${name}]`).checked = true;
    state.variance = closest(map().shown, variance);
    state.depth = closest(map().depths, depth);
    showMap();
  }

  function prepareMap() {
    for (const [name, { name: title }] of Object.entries(data.maps)) {
      const label = made("label"), radio = made("input", "", { type: "radio", name: "architecture", value: name });
      radio.addEventListener("change", () => choose(name));
      label.append(radio, title);
      $("architectures").append(label);
    }
    for (const [name, [title]] of Object.entries(data.measures)) $("measure").append(made("option", title, { value: name }));
    $("measure").addEventListener("change", (event) => { state.measure = event.target.value; showMap(); });
    for (const id of ["show-trained", "show-theory"]) $(id).addEventListener("change", showMap);
    for (const id of ["variance", "depth"]) {
      $(id).addEventListener("input", (event) => { state[id] = Number(event.target.value); show(); });
    }
    const moves = { ArrowLeft: ["variance", -1], ArrowRight: ["variance", 1], ArrowUp: ["depth", 1], ArrowDown: ["depth", -1] };
    $("map").addEventListener("keydown", (event) => {
      const [which, by] = moves[event.key] ?? [];
      if (!which) return;
      event.preventDefault();
      state[which] = Math.min(Number($(which).max), Math.max(0, state[which] + by));
      show();
    });
  }

  function fromAddress() {
    const [name, variance, depth] = location.hash.slice(1).split("/");
    if (name in data.maps) choose(name, Number(variance) || 1.7, Number(depth) || 30);
    return name in data.maps;
  }

  // ---- outputs by hand ----

  function paint(canvas, pixels) {
    const context = canvas.getContext("2d", { willReadFrequently: true }), image = context.createImageData(28, 28);
    pixels.forEach((each, i) => {
      const level = Math.round(255 * Math.min(1, Math.max(0, each)));
      image.data.set([level, level, level, 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }

  function prepareOutputs() {
    const { classes, off, images, about } = data.outputs;
    const weight = unpacked(data.outputs.weight), bias = unpacked(data.outputs.bias);
    const sliders = classes.map((name) => {
      const slider = made("input", "", { type: "range", min: -1, max: 1, step: "any", id: `output-${name}` });
      const words = made("output");
      slider.addEventListener("input", () => send());
      $("output-sliders").append(made("label", name, { htmlFor: slider.id }), slider, words);
      return { slider, words };
    });
    const buttons = [];
    function send(source = null) {
      const outputs = sliders.map(({ slider }) => Number(slider.value));
      paint($("ideal"), bias.map((each, i) => outputs.reduce((sum, y, k) => sum + y * weight[k * bias.length + i], each)));
      const powers = outputs.map((y) => Math.exp(4 * y)), all = powers.reduce((sum, each) => sum + each);
      sliders.forEach(({ words }, k) => {
        words.textContent = `${minus(outputs[k].toFixed(2))} · ${Math.round((100 * powers[k]) / all)}%`;
      });
      $("source").hidden = !source?.picture;
      buttons.forEach(({ button, preset }) => button.setAttribute("aria-pressed", preset === source));
    }
    function take(preset) {
      sliders.forEach(({ slider }, k) => { slider.value = preset.outputs[k]; });
      if (preset.picture) {
        paint($("source-image"), unpacked(preset.picture));
        $("source-caption").textContent = `the image: ${preset.name}`;
      }
      send(preset);
    }
    const ideals = classes.map((name, k) => ({ name, outputs: classes.map((_, i) => (i === k ? 1 : off)) }));
    for (const preset of [...ideals, ...images]) {
      const button = made("button", preset.name, { type: "button" });
      button.addEventListener("click", () => take(preset));
      $("presets").append(button);
      buttons.push({ button, preset });
    }
    $("outputs-about").textContent = `${about}. Buttons with a digit: 1 for it and ${minus(off)} for the others; buttons with a word: the outputs of an image that notebook 05 shows.`;
    take(ideals[3]);
  }

  // ---- the zoo ----

  function table(heads, rows) {
    const made = (cells, tag) => `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
    return `<div class="scroll"><table><thead>${made(heads, "th")}</thead><tbody>${rows.map((row) => made(row, "td")).join("")}</tbody></table></div>`;
  }

  function open(i) {
    const zoo = data.zoo, moments = zoo.moments.length;
    model("zoo", "chosen").data_source.data = { x: [zoo.probability[i]], y: [zoo.best[i]] };
    $("network").value = i;
    const accuracies = zoo.trainings.map((name, k) => [name, ...zoo.accuracy[i].slice(k * moments, (k + 1) * moments).map(percent)]);
    const scores = zoo.predictors.map((name, k) => [name, zoo.scores[i][k] === null ? "–" : minus(zoo.scores[i][k]),
      zoo.ranks[i][k] === null ? "–" : percent(zoo.ranks[i][k]).replace(".0", "")]);
    $("report").innerHTML = `<p><strong>${zoo.told[i]}</strong><br>Foretold to learn with probability <strong>${percent(zoo.probability[i])}</strong>;
      reached <strong>${percent(zoo.best[i])}</strong>: it ${zoo.learns[i] ? "learns" : "does not learn"}.
      <br>Build it again: <code>zoo_network(${zoo.number[i]})</code></p>
      <p class="small">Accuracy of five trainings; – where one had ended before.</p>${table(["training", ...zoo.moments], accuracies)}
      <p class="small">What was said of it; the last column tells how many of the zoo have at most this score.</p>${table(["before or early in training", "score", "rank"], scores)}`;
  }

  function nearest(x, y) {
    const { probability, best } = data.zoo, alpha = model("zoo", "dots").data_source.data.alpha;
    const far = probability.map((each, i) => (alpha[i] > 0 ? Math.hypot(each - x, best[i] - y) : Infinity));
    open(far.indexOf(Math.min(...far)));
  }

  function prepareZoo() {
    const { family, told, about } = data.zoo, source = model("zoo", "dots").data_source;
    told.forEach((words, i) => $("network").append(made("option", words, { value: i })));
    $("network").addEventListener("change", (event) => open(Number(event.target.value)));
    const shown = new Set(family);
    for (const name of [...shown].sort()) {
      const label = made("label"), box = made("input", "", { type: "checkbox", checked: true });
      const swatch = made("i", "", { className: "swatch" });
      swatch.style.background = source.data.colour[family.indexOf(name)];
      box.addEventListener("change", () => {
        if (box.checked) shown.add(name); else shown.delete(name);
        source.data = { ...source.data, alpha: family.map((each) => (shown.has(each) ? 0.75 : 0)) };
      });
      label.append(box, " ", swatch, ` ${name}`);
      $("families").append(label);
    }
    $("zoo-about").textContent = `${told.length} networks of ${new Set(family).size} families, five trainings each: ${about}.`;
    open(0);
  }

  async function start() {
    await Promise.all(Object.entries(data.maps).map(async ([name, { atlas }]) => {
      atlases[name] = Object.assign(new Image(), { src: atlas });
      await atlases[name].decode();
    }));
    await embed("map", "curve");
    prepareMap();
    if (!fromAddress()) { choose("mlp", 1.7, 30); history.replaceState(null, "", location.pathname); }
    window.addEventListener("hashchange", fromAddress);
    prepareOutputs();
    document.body.dataset.ready = "first";
    setTimeout(async () => { // what is further down may come later
      await embed("zoo");
      prepareZoo();
      document.body.dataset.ready = "all";
    });
  }

  async function embed(...names) {
    for (const name of names) {
      await Bokeh.embed.embed_item(data.figures[name], name);
      models[name] = Bokeh.documents.at(-1);
    }
  }

  document.addEventListener("DOMContentLoaded", start);
  return { pick, nearest };
})();
