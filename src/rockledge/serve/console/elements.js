// Elements made of text. Nothing here, and nothing else on the page, turns text into markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; properties in `given` that the element does not have become attributes. */
export function element(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** The same for SVG, where all are attributes. */
export function drawn(tag, given = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), given, children);
}

function filled(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.setAttribute("class", value);
    else if (node.namespaceURI !== SVG && name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A button that copies what `text()` gives. */
export function copyButton(text, label = "Copy") {
  const button = element("button", { type: "button", class: "plain small" }, label);
  button.addEventListener("click", async () => {
    const done = await copied(text());
    button.textContent = done ? "Copied" : "Not allowed here";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Only secure pages have a clipboard, and a board on the local network rarely is one.
    const box = element("textarea", { class: "unseen", value: text });
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

/** A block of code with its language and a button to copy it. */
export function codeBlock(text, language = "") {
  const code = element("code", {}, text);
  const head = element("div", { class: "code-head" }, element("span", {}, language), copyButton(() => code.textContent));
  return element("div", { class: "code-block" }, head, element("pre", { tabIndex: 0 }, code));
}

/** Storage of this tab; where there is none, nothing is kept. */
export const kept = {
  get(name) {
    try {
      return sessionStorage.getItem(`rockledge-${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) sessionStorage.removeItem(`rockledge-${name}`);
      else sessionStorage.setItem(`rockledge-${name}`, value);
    } catch {
      return;
    }
  },
};
