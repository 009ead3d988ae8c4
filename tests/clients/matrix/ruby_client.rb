# Uses redis-rb as applications do, with its default settings.
#
#   ruby ruby_client.rb SCENARIO PORT [cluster]

require "redis"
require "redis-clustering"
require "timeout"

SCENARIO, PORT = ARGV[0], Integer(ARGV[1])
CLUSTER = ARGV[2] == "cluster"
# The hash tag keeps all keys of this process in one slot, for transactions and scripts.
PREFIX = "{#{Process.pid}}:"

def connect(**options)
  CLUSTER ? Redis::Cluster.new(nodes: ["redis://127.0.0.1:#{PORT}"], **options) : Redis.new(host: "127.0.0.1", port: PORT, **options)
end

def expect(step, actual, expected)
  return if actual == expected

  raise "#{step}: expected #{expected.inspect[0, 200]}, got #{actual.inspect[0, 200]}"
end

def fails(step, kind)
  yield
rescue kind
  nil
else
  raise "#{step}: expected #{kind}"
end

def value(i)
  (i % 10).to_s * (1024 * (1 + i % 20))
end

def data(r)
  expect("SET", r.set("#{PREFIX}k", "\r\n\0"), "OK")
  expect("GET", r.get("#{PREFIX}k"), "\r\n\0")
  expect("GET of no key", r.get("#{PREFIX}none"), nil)
  fails("LPUSH on a string", Redis::CommandError) { r.lpush("#{PREFIX}k", "x") }
  expect("HSET", r.hset("#{PREFIX}h", "a", 1, "b", 2), 2)
  expect("HGETALL", r.hgetall("#{PREFIX}h"), { "a" => "1", "b" => "2" })
  expect("RPUSH", r.rpush("#{PREFIX}l", %w[a b c]), 3)
  expect("LRANGE", r.lrange("#{PREFIX}l", 0, -1), %w[a b c])
end

def pipeline(r)
  replies = r.pipelined do |p|
    500.times do |i|
      p.set("#{PREFIX}p#{i}", value(i))
      p.get("#{PREFIX}p#{i}")
    end
  end
  expect("replies of the pipeline", replies.size, 1000)
  500.times { |i| expect("reply of the pipeline", replies[2 * i, 2], ["OK", value(i)]) }
  expect("DEL in a pipeline", r.pipelined { |p| 500.times { |i| p.del("#{PREFIX}p#{i}") } }.sum, 500)
end

def transaction(r, other)
  key = "#{PREFIX}n"
  # The cluster client needs to know the node before it opens the transaction: WATCH names it.
  multi = lambda do |&commands|
    CLUSTER ? r.watch(key) { |client| client.multi(&commands) } : r.multi(&commands)
  end
  replies = multi.call do |tx|
    tx.incr(key)
    tx.incr(key)
    tx.get(key)
  end
  expect("EXEC", replies, [1, 2, "2"])
  watched = lambda do |interfere|
    r.watch(key) do |client|
      client.get(key)
      other.set(key, "other") if interfere
      client.multi { |tx| tx.set(key, "own") }
    end
  end
  expect("EXEC after WATCH", watched.call(false), ["OK"])
  expect("EXEC after a change", watched.call(true), nil)
  expect("value after an aborted transaction", r.get(key), "other")
end

def pub_sub(r, other)
  channel = "#{PREFIX}channel"
  heard = []
  r.subscribe(channel) do |on|
    on.subscribe { other.publish(channel, "m") }
    on.message do |name, message|
      heard << [name, message]
      r.unsubscribe(channel)
    end
  end
  r.psubscribe("#{PREFIX}chan*") do |on|
    on.psubscribe { other.publish(channel, "p") }
    on.pmessage do |pattern, name, message|
      heard << [name, message]
      r.punsubscribe(pattern)
    end
  end
  expect("messages", heard, [[channel, "m"], [channel, "p"]])
  expect("GET after the subscriptions", r.get("#{PREFIX}k"), "\r\n\0")
end

def blocking(r, other)
  queue = "#{PREFIX}q"
  popped = Thread.new { r.blpop(queue, timeout: 10) }
  other.rpush(queue, "job")
  expect("BLPOP", popped.value, [queue, "job"])
  expect("BLPOP without a job", r.blpop(queue, timeout: 1), nil)

  fails("BLPOP within a timeout", Timeout::Error) { Timeout.timeout(0.3) { r.blpop(queue, timeout: 10) } }
  expect("SET after an interrupted BLPOP", r.set("#{PREFIX}k", "after"), "OK")
  expect("GET after an interrupted BLPOP", r.get("#{PREFIX}k"), "after")
  # The interrupted BLPOP must not take later elements.
  other.rpush(queue, "kept")
  expect("second BLPOP", r.blpop(queue, timeout: 5), [queue, "kept"])
end

def script(r)
  text = "return {KEYS[1], ARGV[1] * 2}"
  expect("EVAL", r.eval(text, ["#{PREFIX}k"], [21]), ["#{PREFIX}k", 42])
  hash = r.script(:load, text)
  # The cluster client loads the script on every node.
  hash = hash.first if hash.is_a?(Array)
  expect("EVALSHA", r.evalsha(hash, ["#{PREFIX}k"], [21]), ["#{PREFIX}k", 42])
end

def scan(r)
  # Without the hash tag, so that the keys of a cluster are on all nodes.
  name = "scan:#{Process.pid}:"
  r.pipelined { |p| 1000.times { |i| p.setex("#{name}#{i}", 60, i) } }
  expect("keys found by SCAN", r.scan_each(match: "#{name}*", count: 100).to_a.uniq.size, 1000)
end

def set_and_get(r, text)
  r.set("#{PREFIX}k", text)
  expect("GET", r.get("#{PREFIX}k"), text)
end

def work
  r, other = connect, connect
  data(r)
  pipeline(r)
  transaction(r, other)
  pub_sub(r, other)
  blocking(r, other)
  script(r)
  scan(r)
  r.del("#{PREFIX}k", "#{PREFIX}h", "#{PREFIX}l", "#{PREFIX}n")
  [r, other].each(&:close)
end

def plain
  r = connect
  hash = r.script(:load, "return redis.call('INCRBY', KEYS[1], ARGV[1])")
  hash = hash.first if hash.is_a?(Array)
  2000.times do |i|
    r.set("#{PREFIX}k", i)
    expect("GET", r.get("#{PREFIX}k"), i.to_s)
    r.hset("#{PREFIX}h", "f", i)
    expect("LPUSH", r.lpush("#{PREFIX}l", i), i + 1)
    expect("pipeline", r.pipelined { |p| 10.times { p.incr("#{PREFIX}p") } }.last, 10 * i + 10)
    expect("EVALSHA", r.evalsha(hash, ["#{PREFIX}s"], [2]), 2 * i + 2)
    commands = lambda do |tx|
      tx.incr("#{PREFIX}t")
      tx.hget("#{PREFIX}h", "f")
    end
    replies = CLUSTER ? r.watch("#{PREFIX}t") { |client| client.multi(&commands) } : r.multi(&commands)
    expect("EXEC", replies, [i + 1, i.to_s])
  end
  r.del(*%w[k h l p s t].map { |key| PREFIX + key })
  r.close
end

def connects
  100.times do |i|
    r = connect
    set_and_get(r, i.to_s)
    r.close
  end
end

def stay
  r = nil
  up = nil
  (0..).each do |i|
    begin
      r ||= connect
      set_and_get(r, i.to_s)
      error = nil
    rescue Redis::BaseError => error
    end
    if up != error.nil?
      up = error.nil?
      puts up ? "up" : "down"
      $stdout.flush
      warn "#{error.class}: #{error.message}" if error
    end
    return if IO.select([$stdin], nil, nil, 0.02) && $stdin.read_nonblock(1024, exception: false).nil?
  end
end

def leftover
  r = connect(password: "left over")
  set_and_get(r, "x")
  r.close
end

begin
  send({ "connect" => :connects }.fetch(SCENARIO, SCENARIO))
  puts "ok redis-rb #{Redis::VERSION}"
rescue StandardError => error
  warn error.full_message(highlight: false)
  exit 1
end
