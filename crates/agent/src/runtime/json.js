"use strict";

/**
 * The JSON text of anything: bigints become strings, cycles "[Circular]", what JSON has no word for null. Throws for a
 * value whose arrays and objects are nested deeper than `deepest`.
 */
function jsonText(value, deepest = Infinity) {
  const above = [];
  const text = JSON.stringify(value, function (_key, member) {
    if (typeof member === "bigint") return member.toString();
    // Half a surrogate pair is no text.
    if (typeof member === "string") return member.toWellFormed();
    if (typeof member !== "object" || member === null) return member;
    // `this` is what holds the member: everything that was entered after it has been left.
    while (above.length > 0 && above.at(-1) !== this) above.pop();
    if (above.includes(member)) return "[Circular]";
    if (above.push(member) > deepest) throw new RangeError(`the value is nested more than ${deepest} levels deep`);
    return member;
  });
  return text ?? "null";
}

/** The JSON value of anything. */
function jsonValue(value) {
  return JSON.parse(jsonText(value));
}
