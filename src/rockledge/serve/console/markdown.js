// The Markdown that models write, as elements: headings, lists, quotes, tables, code, emphasis. Links and
// images stay text, and so does everything that looks like HTML.

import { codeBlock, element } from "./elements.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/;
const INLINE = /(`+)(?!`)([\s\S]*?[^`])\1(?!`)|(\*\*|__)(?=\S)([\s\S]*?\S)\3|([*_])(?=[^\s*_])([^*_]*?[^\s*_])\5(?![\w*_])/;
const DEEPEST = 6;

/** Shows `text` in `place`; blocks that have not changed since the last call keep their elements. */
export function showMarkdown(place, text) {
  const sources = blocks(text.split("\n")).map((lines) => lines.join("\n"));
  const before = place.shownBlocks ?? [];
  let same = 0;
  while (same < before.length && same < sources.length && before[same] === sources[same]) same++;
  while (place.childNodes.length > same) place.lastChild.remove();
  for (const source of sources.slice(same)) place.append(block(source.split("\n"), 0));
  place.shownBlocks = sources;
}

function blocks(lines) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const end = lines[at].trim() === "" ? at + 1 : endOfBlock(lines, at);
    if (lines[at].trim() !== "") found.push(lines.slice(at, end));
    at = end;
  }
  return found;
}

function endOfBlock(lines, start) {
  const first = lines[start];
  let at = start + 1;
  const fence = FENCE.exec(first);
  if (fence) {
    while (at < lines.length && !closes(lines[at], fence[1])) at++;
    return Math.min(at + 1, lines.length);
  }
  if (HEADING.test(first) || RULE.test(first)) return at;
  if (QUOTE.test(first)) {
    while (at < lines.length && QUOTE.test(lines[at])) at++;
    return at;
  }
  if (ITEM.test(first)) {
    let open = null;
    for (; at < lines.length; at++) {
      const line = lines[at];
      if (open !== null) {
        if (closes(line.trim(), open)) open = null;
        continue;
      }
      const inner = FENCE.exec(line.trim());
      const inside = ITEM.test(line) || /^\s{2,}\S/.test(line);
      if (inner && inside) open = inner[1];
      else if (line.trim() === "") {
        const next = lines.slice(at + 1).find((later) => later.trim() !== "");
        if (next === undefined || !(ITEM.test(next) || /^\s{2,}\S/.test(next))) return at;
      } else if (!inside && (lines[at - 1].trim() === "" || begins(line))) return at;
    }
    return at;
  }
  while (at < lines.length && lines[at].trim() !== "" && !begins(lines[at]) && !ITEM.test(lines[at])) at++;
  return at;
}

const begins = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line);
const closes = (line, fence) => line.trim().startsWith(fence) && line.trim().replaceAll(fence[0], "") === "";

function block(lines, depth) {
  if (depth > DEEPEST) return element("p", {}, lines.join("\n"));
  const first = lines[0];
  const fence = FENCE.exec(first);
  if (fence) {
    const closed = lines.length > 1 && closes(lines.at(-1), fence[1]);
    return codeBlock(lines.slice(1, closed ? -1 : undefined).join("\n"), fence[2].trim());
  }
  const heading = HEADING.exec(first);
  if (heading) return element(`h${Math.min(heading[1].length + 2, 6)}`, {}, ...inline(heading[2]));
  if (RULE.test(first)) return element("hr");
  if (QUOTE.test(first)) {
    const inner = lines.map((line) => QUOTE.exec(line)[1]);
    return element("blockquote", {}, ...blocks(inner).map((part) => block(part, depth + 1)));
  }
  if (ITEM.test(first)) return list(lines, depth);
  if (lines.length > 1 && first.includes("|") && TABLE_LINE.test(lines[1])) return table(lines);
  return element("p", {}, ...inline(lines.join("\n")));
}

function list(lines, depth) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) items.push([found[3]]);
    else items.at(-1).push(line.replace(/^\s{1,4}/, ""));
  }
  const ordered = /\d/.test(mark);
  const made = items.map((item) => {
    const parts = blocks(item).map((part) => block(part, depth + 1));
    const [head, ...others] = parts;
    // What stands on the line of the mark is not a paragraph of its own.
    const own = head?.tagName === "P" ? [...head.childNodes] : head ? [head] : [];
    return element("li", {}, ...own, ...others);
  });
  return element(ordered ? "ol" : "ul", ordered ? { start: Number.parseInt(mark, 10) } : {}, ...made);
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (tag) => (line) => element("tr", {}, ...cells(line).map((cell) => element(tag, {}, ...inline(cell))));
  const body = element("tbody", {}, ...lines.slice(2).map(row("td")));
  const whole = element("table", {}, element("thead", {}, row("th")(lines[0])), body);
  return element("div", { class: "wide", tabIndex: 0, role: "region", ariaLabel: "Table" }, whole);
}

function inline(text) {
  const found = [];
  for (let rest = text; rest !== ""; ) {
    const match = INLINE.exec(rest);
    if (!match || insideWord(rest, match)) {
      const end = match ? match.index + match[0].length : rest.length;
      found.push(rest.slice(0, end));
      rest = rest.slice(end);
      continue;
    }
    if (match.index > 0) found.push(rest.slice(0, match.index));
    if (match[1]) found.push(element("code", {}, match[2].trim() || match[2]));
    else if (match[3]) found.push(element("strong", {}, ...inline(match[4])));
    else found.push(element("em", {}, ...inline(match[6])));
    rest = rest.slice(match.index + match[0].length);
  }
  return found;
}

// snake_case_names are not emphasis.
const insideWord = (text, match) => (match[5] ?? match[3])?.[0] === "_" && /\w$/.test(text.slice(0, match.index));
