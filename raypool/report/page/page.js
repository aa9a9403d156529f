"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colours = { completed: "good", failed: "bad", read: "good", written: "calm", cost: "calm", refused: "bad", retried: "warn", tasks: "good" };
  const plots = new Map();
  const HEIGHT = 260, PRINTED_WIDTH = 330;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");

  function amount(value) {
    if (value === null || value === undefined) return "–";
    for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
      if (Math.abs(value) >= limit) return `${+(value / (unit === "k" ? 1e3 : limit)).toPrecision(3)}${unit}`;
    }
    return `${+value.toPrecision(value >= 1000 ? 4 : 3)}`;
  }

  const MINUTE = 60, HOUR = 3600, DAY = 86400;
  const timeSteps = [
    ...[1, 5, 10, 15, 30], ...[1, 5, 10, 15, 30].map((n) => n * MINUTE), ...[1, 2, 3, 6, 12].map((n) => n * HOUR),
    ...[1, 2, 3, 5, 10, 15, 30, 60, 90, 180, 365, 730, 1825, 3650].map((n) => n * DAY),
  ];
  const dayAndTime = ["\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1];
  const timeFormats = [
    [31536000, "{YYYY}", null, null, null, null, null, null, 1],
    [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
    [3600, "{HH}:{mm}", ...dayAndTime],
    [60, "{HH}:{mm}", ...dayAndTime],
    [1, "{HH}:{mm}:{ss}", ...dayAndTime],
  ];

  function axes(chart, isNarrow) {
    const look = { stroke: css("soft"), grid: { stroke: css("line"), width: 1 }, ticks: { stroke: css("line"), width: 1 } };
    const x = { ...look, space: isNarrow ? 60 : 80 };
    if (chart.kind === "time") {
      x.values = timeFormats;
      x.incrs = timeSteps;
    } else {
      const ticks = roundDurations(chart.edges, isNarrow ? 4 : 9);
      x.splits = () => ticks.map((ms) => placeOf(chart.edges, ms));
      x.values = () => ticks.map(inWords);
    }
    const y = { ...look, size: 52, values: (_, splits) => splits.map(amount) };
    return [x, y];
  }

  const placeOf = (edges, ms) => {
    const count = edges.length - 1;
    return Math.log(ms / edges[0]) / Math.log(edges[count] / edges[0]) * count - 0.5;
  };

  function roundDurations(edges, most) {
    const low = edges[0], high = edges[edges.length - 1];
    const within = (digits) => {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const digit of digits) {
          const ms = digit * 10 ** power;
          if (ms >= low * 0.999 && ms <= high * 1.001) found.push(ms);
        }
      }
      return found;
    };
    const all = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]].map(within);
    return all.find((ticks) => ticks.length <= most) ?? all[3];
  }

  function inWords(ms) {
    const value = ms < 1000 ? ms : ms / 1000;
    return `${+value.toPrecision(2)} ${ms < 1000 ? "ms" : "s"}`;
  }

  function series(chart) {
    const atCursor = chart.kind === "time"
      ? { label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" }
      : { label: "took", value: (_, n) => (n === null ? "–" : `${chart.labels[n]} to ${chart.labels[n + 1]}`) };
    const lines = Object.keys(chart.columns).map((name, n) => {
      const colour = css(colours[name]);
      const path = chart.kind === "duration" ? uPlot.paths.bars({ size: [0.9, 100] })
        : name === "cost" ? uPlot.paths.linear() : uPlot.paths.stepped({ align: 1 });
      return {
        label: name, stroke: colour, width: 1.5, paths: path, points: { show: false },
        fill: n === 0 ? `color-mix(in srgb, ${colour} ${css("fill")}, transparent)` : undefined,
        value: (_, value) => amount(value),
      };
    });
    return [atCursor, ...lines];
  }

  function marks(chart) {
    return (plot) => {
      const { ctx } = plot, ratio = uPlot.pxRatio;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = css("ink");
      ctx.font = `${12 * ratio}px sans-serif`;
      ctx.setLineDash([4 * ratio, 3 * ratio]);
      Object.entries(chart.marks).forEach(([name, ms], n) => {
        const x = plot.valToPos(placeOf(chart.edges, ms), "x", true);
        ctx.beginPath();
        ctx.moveTo(x, plot.bbox.top);
        ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
        ctx.stroke();
        const isLeft = x > plot.bbox.left + plot.bbox.width - 40 * ratio;
        ctx.textAlign = isLeft ? "right" : "left";
        ctx.fillText(name, x + (isLeft ? -4 : 4) * ratio, plot.bbox.top + (12 + 14 * n) * ratio);
      });
      ctx.restore();
    };
  }

  function data(chart) {
    const columns = Object.values(chart.columns);
    if (chart.kind === "duration") return [chart.x, ...columns];
    const end = chart.x[chart.x.length - 1] + chart.step;
    if ("cost" in chart.columns) return [[chart.x[0], ...chart.x.map((at) => at + chart.step)], [0, ...columns[0]]];
    return [[...chart.x, end], ...columns.map((column) => [...column, column[column.length - 1]])];
  }

  function draw(name, chart) {
    const place = document.getElementById(name);
    const width = isPrinting() ? PRINTED_WIDTH : place.clientWidth;
    plots.get(name)?.destroy();
    plots.set(name, new uPlot({
      width, height: HEIGHT, tzDate: utc,
      scales: {
        x: chart.kind === "time" ? { time: true } : { time: false, range: [-0.5, chart.x.length - 0.5] },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: axes(chart, width < 480), series: series(chart),
      cursor: { sync: chart.kind === "time" ? { key: "time" } : undefined, drag: { x: chart.kind === "time", y: false } },
      hooks: chart.marks ? { draw: [marks(chart)] } : {},
    }, data(chart), place));
  }

  const isPrinting = () => document.documentElement.hasAttribute("data-print");
  const drawAll = () => Object.entries(charts).forEach(([name, chart]) => draw(name, chart));

  function followSize() {
    const widths = new Map();
    const watcher = new ResizeObserver((entries) => entries.forEach(({ target }) => {
      const width = target.clientWidth;
      if (!isPrinting() && widths.get(target) !== width) {
        widths.set(target, width);
        draw(target.id, charts[target.id]);
      }
    }));
    Object.keys(charts).forEach((name) => watcher.observe(document.getElementById(name)));
  }

  function followPrinting() {
    addEventListener("beforeprint", () => { document.documentElement.setAttribute("data-print", ""); drawAll(); });
    addEventListener("afterprint", () => { document.documentElement.removeAttribute("data-print"); drawAll(); });
  }

  function search() {
    const field = document.getElementById("search"), told = document.getElementById("found");
    if (!field) return;
    const tasks = [...document.querySelectorAll(".listing tbody")].map((body) => [body, body.textContent.toLowerCase()]);
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [body, text] of tasks) {
        body.hidden = !words.every((word) => text.includes(word));
        shown += !body.hidden;
      }
      told.textContent = words.length ? `${shown} of ${tasks.length} rows` : "";
    };
    field.addEventListener("input", filter);
    addEventListener("keydown", (event) => {
      const isTyping = event.target instanceof HTMLInputElement;
      if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        field.focus();
      } else if (event.key === "Escape" && event.target === field) {
        field.value = "";
        filter();
      }
    });
  }

  drawAll();
  followSize();
  followPrinting();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  search();
})();
