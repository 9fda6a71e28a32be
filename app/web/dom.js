// Elements, made from text and properties only: nothing from a model or a file is ever read as HTML.

/** @param {string} id */
export const element = (id) => document.getElementById(id);

/**
 * An element with attributes (true and false for those without a value; functions listen) and children.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 */
export function make(tag, attributes = {}, ...children) {
  return fillElement(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fillElement(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fillElement(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name.startsWith("--")) made.style.setProperty(name, String(value));
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A bar from 0 to `share`; the text next to it gives its meaning. */
export function bar(share, kind = "", mark = null) {
  return make(
    "span",
    { class: `bar ${kind}`, "aria-hidden": "true", "--share": Math.min(1, Math.max(0, share)) },
    mark === null ? null : make("span", { class: "mark", "--share": mark }),
  );
}

/** A table; heads that are texts become header cells. */
export function table(attributes, heads, rows, caption = null) {
  const cells = heads.map((head) => (head instanceof Node ? head : make("th", { scope: "col" }, head)));
  return make("table", attributes, caption, make("thead", {}, make("tr", {}, ...cells)), make("tbody", {}, ...rows));
}

/** A row of buttons of which one is pressed; `choose` is called with its value. */
export function segmented(label, options, chosen, choose) {
  const group = make("div", { class: "segmented", role: "group", "aria-label": label });
  for (const [value, words] of options) {
    const press = () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      choose(value);
    };
    const button = make("button", { type: "button", "aria-pressed": String(value === chosen), click: press }, words);
    group.append(button);
  }
  return group;
}
