// Drawing that the pages of `show` and `serve` share. `data` is what `page_data` returns.
const $ = id => document.getElementById(id);
const make = (tag, text, attributes) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; Object.assign(e, attributes || {}); return e; };
const svg = (tag, attributes, text) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const k in attributes) e.setAttribute(k, attributes[k]); if (text !== undefined) e.textContent = text; return e; };
const ruler = document.createElement("canvas").getContext("2d"); ruler.font = '12px system-ui, "Segoe UI", "Noto Sans KR", "Korean of this page", sans-serif';
const width = text => ruler.measureText(text).width;
const widest = labels => Math.max(...labels.map(width)) + 8;
const color = w => { const t = Math.sqrt(w); return `rgb(${Math.round(250 - 230 * t)},${Math.round(251 - 190 * t)},${Math.round(255 - 115 * t)})`; };
const options = (id, n, chosen) => { $(id).replaceChildren(); for (let i = 0; i < n; i++) $(id).append(make("option", String(i + 1), {value: i})); $(id).value = chosen; };
const mean = heads => heads[0].map((row, i) => row.map((_, j) => heads.reduce((sum, h) => sum + h[i][j], 0) / heads.length));

// One heat map: queries are rows, keys are columns.
const heat = (weights, queries, keys) => {
  const cell = 22, left = widest(queries), top = widest(keys);
  const map = svg("svg", {width: left + cell * keys.length + 10, height: top + cell * queries.length + 10});
  keys.forEach((key, j) => map.append(svg("text", {transform: `translate(${left + cell * j + 15},${top - 5}) rotate(-90)`}, key)));
  queries.forEach((query, i) => {
    map.append(svg("text", {x: left - 5, y: top + cell * i + 15, "text-anchor": "end"}, query));
    keys.forEach((key, j) => {
      const box = svg("rect", {x: left + cell * j, y: top + cell * i, width: cell - 1, height: cell - 1, fill: color(weights[i][j])});
      box.append(svg("title", {}, `${query} → ${key}: ${weights[i][j].toFixed(3)}`));
      box.addEventListener("mouseenter", () => { $("cell").textContent = `${query} → ${key}: ${weights[i][j].toFixed(3)}`; });
      map.append(box);
    });
  });
  return map;
};

// Small maps of all heads of a layer, and the chosen one as a heat map. `names` is in the page's language.
let head = -1;
const showAttention = (data, names = {head: "head", mean: "mean of heads"}) => {
  const labels = (kind, unit) => { const names = unit === "words" ? [data.source_words, data.input_words] : [data.source_pieces, data.inputs_pieces]; return {encoder: [names[0], names[0]], decoder: [names[1], names[1]], cross: [names[1], names[0]]}[kind]; };
  const draw = () => {
    const kind = $("kind").value, unit = $("unit").value, heads = data.weights[unit][kind][+$("layer").value];
    const [queries, keys] = labels(kind, unit);
    $("thumbs").replaceChildren(); $("cell").textContent = "";
    [mean(heads), ...heads].forEach((weights, n) => {
      const canvas = make("canvas", undefined, {width: keys.length, height: queries.length});
      canvas.style.width = Math.max(70, Math.min(110, keys.length * 8)) + "px"; canvas.style.height = Math.max(50, Math.min(110, queries.length * 8)) + "px";
      const brush = canvas.getContext("2d");
      weights.forEach((row, i) => row.forEach((w, j) => { brush.fillStyle = color(w); brush.fillRect(j, i, 1, 1); }));
      const thumb = make("div", undefined, {className: "thumb" + (n - 1 === head ? " on" : "")});
      thumb.append(canvas, make("span", n ? `${names.head} ${n}` : names.mean));
      thumb.addEventListener("click", () => { head = n - 1; draw(); });
      $("thumbs").append(thumb);
    });
    $("map").replaceChildren(heat(head < 0 ? mean(heads) : heads[head], queries, keys));
  };
  const layersOf = () => { const n = data.weights.pieces[$("kind").value].length; options("layer", n, n - 1); draw(); };
  $("kind").onchange = layersOf; $("layer").onchange = draw; $("unit").onchange = draw;
  layersOf();
};

// Lines from each step of the decoder to what it looked at, by the mean of the heads of one layer.
const showAlignment = data => {
  const draw = () => {
    const weights = mean(data.weights.pieces.cross[+$("alignlayer").value]), gap = 14;
    const place = tokens => { let x = 5; return tokens.map(token => { const w = width(token), at = x + w / 2; x += w + gap; return at; }); };
    const above = place(data.source_pieces), below = place(data.outputs_pieces);
    const map = svg("svg", {width: Math.max(above.at(-1), below.at(-1)) + 80, height: 190});
    weights.forEach((row, t) => { const most = Math.max(...row); row.forEach((w, s) => { if (w > 0.04) map.append(svg("line", {x1: above[s], y1: 24, x2: below[t], y2: 160, stroke: w === most ? "#e07b00" : "#3b7dd8", "stroke-width": 5 * w, "stroke-opacity": Math.min(1, .2 + w)})); }); });
    data.source_pieces.forEach((token, s) => map.append(svg("text", {x: above[s], y: 16, "text-anchor": "middle"}, token)));
    data.outputs_pieces.forEach((token, t) => map.append(svg("text", {x: below[t], y: 178, "text-anchor": "middle"}, token)));
    $("alignment").replaceChildren(map);
  };
  options("alignlayer", data.weights.pieces.cross.length, data.weights.pieces.cross.length - 1);
  $("alignlayer").onchange = draw; draw();
};
