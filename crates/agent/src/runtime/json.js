"use strict";

/** The JSON value of anything: bigints become strings, cycles "[Circular]", what JSON has no word for null. */
function jsonValue(value) {
  const above = [];
  const text = JSON.stringify(value, function (_key, member) {
    if (typeof member === "bigint") return member.toString();
    // Half a surrogate pair is no text.
    if (typeof member === "string") return member.toWellFormed();
    if (typeof member !== "object" || member === null) return member;
    // `this` is what holds the member: everything that was entered after it has been left.
    while (above.length > 0 && above.at(-1) !== this) above.pop();
    if (above.includes(member)) return "[Circular]";
    above.push(member);
    return member;
  });
  return text === undefined ? null : JSON.parse(text);
}
