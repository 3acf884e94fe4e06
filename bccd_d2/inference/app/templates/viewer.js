// A picture that zooms and pans, with outlines on it that can be clicked and drawn.

const SVG = "http://www.w3.org/2000/svg";
const CLICK = 5; // screen pixels that a click may move
const MOST_ZOOM = 24;

export class Viewer {
  // onSelect(number or null) and onDraw([x0, y0, x1, y1, ...]) are told what a visitor does.
  constructor(svg, { onSelect, onDraw }) {
    Object.assign(this, { svg, onSelect, onDraw, drawing: false, width: 1, height: 1, scale: 1, x: 0, y: 0 });
    this.image = svg.appendChild(document.createElementNS(SVG, "image"));
    this.outlines = svg.appendChild(document.createElementNS(SVG, "g"));
    this.pen = svg.appendChild(document.createElementNS(SVG, "path"));
    this.pen.setAttribute("class", "pen");
    this.pointers = new Map();
    svg.addEventListener("pointerdown", (event) => this.#down(event));
    svg.addEventListener("pointermove", (event) => this.#move(event));
    svg.addEventListener("pointerup", (event) => this.#up(event));
    svg.addEventListener("pointercancel", (event) => this.#cancel(event));
    svg.addEventListener("dblclick", (event) => this.zoom(2, event.clientX, event.clientY));
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX, event.clientY);
    }, { passive: false });
    new ResizeObserver(() => (this.fitted ? this.fit() : this.#apply())).observe(svg);
  }

  show(url, width, height) {
    Object.assign(this, { width, height });
    for (const [name, value] of Object.entries({ href: url, width, height })) this.image.setAttribute(name, value);
    this.setCells([], []);
    this.fit();
  }

  // Cells have number, class, path and corrected; small ones lie on top of large ones.
  setCells(cells, classes) {
    const area = (cell) => cell.px * cell.px;
    this.outlines.replaceChildren(...[...cells].sort((a, b) => area(b) - area(a)).map((cell) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", cell.path);
      path.dataset.number = cell.number;
      path.style.setProperty("--color", classes[cell.class].color);
      path.classList.toggle("corrected", cell.corrected);
      return path;
    }));
    this.select(this.selected);
  }

  select(number) {
    this.selected = number;
    for (const path of this.outlines.children) path.classList.toggle("selected", path.dataset.number === String(number));
  }

  setDrawing(drawing) {
    this.drawing = drawing;
    this.svg.classList.toggle("drawing", drawing);
    this.#clearPen();
  }

  fit() {
    const { width, height } = this.svg.getBoundingClientRect();
    this.scale = Math.min(width / this.width, height / this.height) || 1;
    this.x = (this.width - width / this.scale) / 2;
    this.y = (this.height - height / this.scale) / 2;
    this.#apply();
    this.fitted = true;
  }

  // About a point of the screen, by default the middle.
  zoom(factor, clientX, clientY) {
    const box = this.svg.getBoundingClientRect();
    clientX ??= box.x + box.width / 2;
    clientY ??= box.y + box.height / 2;
    const [x, y] = this.#point(clientX, clientY);
    const least = 0.5 * Math.min(box.width / this.width, box.height / this.height);
    this.scale = Math.min(Math.max(this.scale * factor, least), MOST_ZOOM);
    this.x = x - (clientX - box.x) / this.scale;
    this.y = y - (clientY - box.y) / this.scale;
    this.#apply();
  }

  #apply() {
    this.fitted = false;
    const { width, height } = this.svg.getBoundingClientRect();
    // Half of the view stays on the picture.
    const [w, h] = [width / this.scale, height / this.scale];
    this.x = Math.min(Math.max(this.x, -w / 2), this.width - w / 2);
    this.y = Math.min(Math.max(this.y, -h / 2), this.height - h / 2);
    this.svg.setAttribute("viewBox", `${this.x} ${this.y} ${w} ${h}`);
    this.svg.classList.toggle("sharp", this.scale > 3);
  }

  // Pixels of the image of a point of the screen.
  #point(clientX, clientY) {
    const box = this.svg.getBoundingClientRect();
    return [this.x + (clientX - box.x) / this.scale, this.y + (clientY - box.y) / this.scale];
  }

  #down(event) {
    if (event.button) return;
    this.svg.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.moved = this.pointers.size > 1;
    if (this.drawing && this.pointers.size === 1) this.corners = this.#point(event.clientX, event.clientY);
    else this.#clearPen();
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter((other) => other.pointerId !== event.pointerId);
    if (this.corners) {
      this.corners.push(...this.#point(event.clientX, event.clientY));
      this.pen.setAttribute("d", `M${this.corners.join(" ")}Z`);
    } else if (others.length) {
      const distance = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
      this.zoom(distance(event) / Math.max(1, distance(before)), others[0].clientX, others[0].clientY);
    } else {
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      if (!this.moved && Math.hypot(dx, dy) < CLICK) return;
      this.moved = true;
      this.svg.classList.add("panning");
      this.x -= dx / this.scale;
      this.y -= dy / this.scale;
      this.#apply();
    }
    this.pointers.set(event.pointerId, event);
  }

  #up(event) {
    const { corners, moved } = this;
    if (!this.pointers.has(event.pointerId)) return;
    this.#cancel(event);
    if (corners) {
      if (corners.length >= 12) this.onDraw(corners.map((value) => Math.round(value * 10) / 10));
    } else if (!moved && !this.drawing) {
      const hit = document.elementFromPoint(event.clientX, event.clientY)?.dataset?.number;
      this.onSelect(hit === undefined ? null : Number(hit));
    }
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    this.svg.classList.remove("panning");
    this.#clearPen();
  }

  #clearPen() {
    this.corners = null;
    this.pen.setAttribute("d", "");
  }
}
