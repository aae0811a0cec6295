// A small SDK: a price list and an order.
const prices = { apple: 30, bread: 250, coffee: 420 };

export function catalogue() {
  return Object.entries(prices).map(([name, cents]) => ({ name, cents }));
}

export function order(names, times = 1) {
  const unknown = names.filter((name) => !(name in prices));
  if (unknown.length > 0) throw new Error(`not for sale: ${unknown.join(", ")}`);
  const total = names.reduce((sum, name) => sum + prices[name], 0) * times;
  return { items: names.length * times, total: `${(total / 100).toFixed(2)} EUR` };
}
