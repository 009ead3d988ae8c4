// Records every TCP port that this process dials, with any library.
const net = require("net");

const ports = new Set();
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...words) {
  // `net.connect` passes its arguments as one array.
  const [options] = Array.isArray(words[0]) ? words[0] : words;
  if (options && options.port) ports.add(Number(options.port));
  return connect.apply(this, words);
};

module.exports = { ports };
