<?php
// Uses phpredis as applications do, with its default settings.
//
//   php php_client.php SCENARIO PORT [cluster]

[$scenario, $port, $cluster] = [$argv[1], (int) $argv[2], ($argv[3] ?? '') === 'cluster'];
// The hash tag keeps all keys of this process in one slot, for transactions and scripts.
$prefix = '{' . getmypid() . '}:';

set_error_handler(function ($level, $message) {
    throw new ErrorException($message, 0, $level);
});

/** A client at the defaults of the extension; the arguments are what a scenario needs besides. */
function connect($password = null, $read_timeout = 0)
{
    global $port, $cluster;
    if ($cluster) {
        return new RedisCluster(null, ["127.0.0.1:$port"], 0, $read_timeout, false, $password);
    }
    $redis = new Redis();
    $redis->connect('127.0.0.1', $port, 0, null, 0, $read_timeout);
    if ($password !== null) {
        $redis->auth($password);
    }
    return $redis;
}

function expect($step, $actual, $expected)
{
    if ($actual !== $expected) {
        throw new Exception("$step: expected " . substr(json_encode($expected), 0, 200) . ', got ' . substr(json_encode($actual), 0, 200));
    }
}

/** Runs $what with a connection of its own in a child process; returns a function that waits for its end. */
function in_child($what)
{
    $child = pcntl_fork();
    if ($child === 0) {
        try {
            $what(connect());
            exit(0);
        } catch (Throwable $error) {
            fwrite(STDERR, "in the child process: {$error->getMessage()}\n");
            exit(1);
        }
    }
    return function () use ($child) {
        pcntl_waitpid($child, $status);
        expect('exit status of the child process', pcntl_wexitstatus($status), 0);
    };
}

function value($i)
{
    return str_repeat((string) ($i % 10), 1024 * (1 + $i % 20));
}

function data($r)
{
    global $prefix;
    expect('SET', $r->set("{$prefix}k", "\r\n\0"), true);
    expect('GET', $r->get("{$prefix}k"), "\r\n\0");
    expect('GET of no key', $r->get("{$prefix}none"), false);
    expect('LPUSH on a string', $r->lPush("{$prefix}k", 'x'), false);
    expect('error', str_starts_with($r->getLastError(), 'WRONGTYPE'), true);
    $r->clearLastError();
    expect('HMSET', $r->hMSet("{$prefix}h", ['a' => '1', 'b' => '2']), true);
    expect('HGETALL', $r->hGetAll("{$prefix}h"), ['a' => '1', 'b' => '2']);
    expect('RPUSH', $r->rPush("{$prefix}l", 'a', 'b', 'c'), 3);
    expect('LRANGE', $r->lRange("{$prefix}l", 0, -1), ['a', 'b', 'c']);
}

/** RedisCluster has no pipelines: there the commands go one by one. */
function pipeline($r, $commands)
{
    global $cluster;
    $to = $cluster ? $r : $r->pipeline();
    $replies = [];
    foreach ($commands as [$command, $arguments]) {
        $replies[] = $to->$command(...$arguments);
    }
    return $cluster ? $replies : $to->exec();
}

function pipelines($r)
{
    global $prefix;
    $commands = $deletions = [];
    for ($i = 0; $i < 500; $i++) {
        array_push($commands, ['set', ["{$prefix}p$i", value($i)]], ['get', ["{$prefix}p$i"]]);
        $deletions[] = ['del', ["{$prefix}p$i"]];
    }
    $replies = pipeline($r, $commands);
    expect('replies of the pipeline', count($replies), 1000);
    for ($i = 0; $i < 500; $i++) {
        expect('reply of SET in the pipeline', $replies[2 * $i], true);
        expect('reply of GET in the pipeline', $replies[2 * $i + 1], value($i));
    }
    expect('DEL in a pipeline', array_sum(pipeline($r, $deletions)), 500);
}

function transaction($r, $other)
{
    global $prefix;
    expect('EXEC', $r->multi()->incr("{$prefix}n")->incr("{$prefix}n")->get("{$prefix}n")->exec(), [1, 2, '2']);
    expect('WATCH', $r->watch("{$prefix}n"), true);
    expect('GET of a watched key', $r->get("{$prefix}n"), '2');
    expect('EXEC after WATCH', $r->multi()->set("{$prefix}n", 'own')->exec(), [true]);
    $r->watch("{$prefix}n");
    $other->set("{$prefix}n", 'other');
    // RedisCluster answers an aborted transaction with an array that holds false.
    expect('EXEC after a change', in_array($r->multi()->set("{$prefix}n", 'own')->exec(), [false, [false]], true), true);
    expect('value after an aborted transaction', $r->get("{$prefix}n"), 'other');
}

function pub_sub($r)
{
    global $prefix, $cluster;
    foreach (['subscribe', 'psubscribe'] as $command) {
        $channel = "{$prefix}$command";
        // subscribe() does not say when the subscription is confirmed. So the child process publishes until a subscriber has received
        // the message. In a cluster the reply to PUBLISH counts only one node's subscribers, and the key says that it was heard.
        $published = in_child(function ($child) use ($channel, $prefix) {
            for ($i = 0; $i < 5000; $i++) {
                if (($i % 100 === 0 && $child->publish($channel, 'm') > 0) || $child->exists("{$prefix}heard")) {
                    return;
                }
                usleep(1000);
            }
            throw new Exception('no subscriber received the message');
        });
        $heard = null;
        $receive = function ($channel, $message) use (&$heard, $r, $prefix) {
            $heard = [$channel, $message];
            $r->set("{$prefix}heard", '1');
        };
        // RedisCluster sends UNSUBSCRIBE, but continues to read: only a read timeout ends its subscribe().
        $subscriber = connect(null, $cluster ? 1 : 0);
        if ($command === 'subscribe') {
            $subscriber->subscribe([$channel], function ($s, $channel, $message) use ($receive) {
                $receive($channel, $message);
                $s->unsubscribe([$channel]);
            });
        } else {
            $subscriber->psubscribe(["{$prefix}psub*"], function ($s, $pattern, $channel, $message) use ($receive) {
                $receive($channel, $message);
                $s->punsubscribe([$pattern]);
            });
        }
        expect($command, $heard, [$channel, 'm']);
        $published();
        $r->del("{$prefix}heard");
        if (!$cluster) {
            expect('GET after the subscription', $subscriber->get("{$prefix}k"), "\r\n\0");
        }
        $subscriber->close();
    }
}

function blocking($r, $other)
{
    global $prefix;
    $pushed = in_child(fn ($child) => expect('RPUSH of a job', $child->rPush("{$prefix}q", 'job'), 1));
    expect('BLPOP', $r->blPop("{$prefix}q", 10), ["{$prefix}q", 'job']);
    $pushed();
    expect('BLPOP without a job', (bool) $r->blPop("{$prefix}q", 1), false);

    $worker = connect(null, 0.3);
    $interrupted = false;
    try {
        $worker->blPop("{$prefix}q", 10);
    } catch (RedisException | RedisClusterException $error) {
        $interrupted = true;
    }
    expect('BLPOP with a read timeout ends early', $interrupted, true);
    expect('SET after an interrupted BLPOP', $worker->set("{$prefix}k", 'after'), true);
    expect('GET after an interrupted BLPOP', $worker->get("{$prefix}k"), 'after');
    // The interrupted BLPOP must not take later elements.
    $other->rPush("{$prefix}q", 'kept');
    expect('second BLPOP', $worker->blPop("{$prefix}q", 5), ["{$prefix}q", 'kept']);
    $worker->close();
}

function script($r)
{
    global $prefix, $cluster;
    $text = 'return {KEYS[1], ARGV[1] * 2}';
    expect('EVAL', $r->eval($text, ["{$prefix}k", 21], 1), ["{$prefix}k", 42]);
    $hash = $cluster ? $r->script("{$prefix}k", 'load', $text) : $r->script('load', $text);
    expect('SCRIPT LOAD', $hash, sha1($text));
    expect('EVALSHA', $r->evalSha($hash, ["{$prefix}k", 21], 1), ["{$prefix}k", 42]);
}

function scan($r)
{
    global $cluster;
    // Without the hash tag, so that the keys of a cluster are on all nodes.
    $name = 'scan:' . getmypid() . ':';
    $commands = [];
    for ($i = 0; $i < 1000; $i++) {
        $commands[] = ['setex', ["$name$i", 60, (string) $i]];
    }
    pipeline($r, $commands);
    $found = [];
    foreach ($cluster ? $r->_masters() : [null] as $node) {
        $cursor = null;
        do {
            $keys = $cluster ? $r->scan($cursor, $node, "$name*", 100) : $r->scan($cursor, "$name*", 100);
            $found = array_merge($found, $keys ?: []);
        } while ($cursor > 0);
    }
    expect('keys found by SCAN', count(array_unique($found)), 1000);
}

function set_and_get($r, $text)
{
    global $prefix;
    $set = $r->set("{$prefix}k", $text);
    $got = $r->get("{$prefix}k");
    // phpredis returns false for an error from the server, and has its text.
    if ($set !== true || $got === false) {
        throw new RedisException($r->getLastError() ?? 'the server answered with an error');
    }
    expect('GET', $got, $text);
}

$scenarios = [
    'work' => function () use ($prefix) {
        [$r, $other] = [connect(), connect()];
        data($r);
        pipelines($r);
        transaction($r, $other);
        pub_sub($r);
        blocking($r, $other);
        script($r);
        scan($r);
        $r->del("{$prefix}k", "{$prefix}h", "{$prefix}l", "{$prefix}n");
        $r->close();
        $other->close();
    },
    'plain' => function () use ($prefix) {
        $r = connect();
        $add = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
        $r->eval($add, ["{$prefix}s", 0], 1);
        for ($i = 0; $i < 2000; $i++) {
            expect('SET', $r->set("{$prefix}k", (string) $i), true);
            expect('GET', $r->get("{$prefix}k"), (string) $i);
            $r->hSet("{$prefix}h", 'f', (string) $i);
            expect('LPUSH', $r->lPush("{$prefix}l", (string) $i), $i + 1);
            $replies = pipeline($r, array_fill(0, 10, ['incr', ["{$prefix}p"]]));
            expect('pipeline', $replies[9], 10 * $i + 10);
            expect('EVALSHA', $r->evalSha(sha1($add), ["{$prefix}s", 2], 1), 2 * $i + 2);
            expect('EXEC', $r->multi()->incr("{$prefix}t")->hGet("{$prefix}h", 'f')->exec(), [$i + 1, (string) $i]);
        }
        $r->del("{$prefix}k", "{$prefix}h", "{$prefix}l", "{$prefix}p", "{$prefix}s", "{$prefix}t");
        $r->close();
    },
    'connect' => function () {
        for ($i = 0; $i < 100; $i++) {
            $r = connect();
            set_and_get($r, (string) $i);
            $r->close();
        }
    },
    'stay' => function () {
        $r = null;
        $up = null;
        for ($i = 0; true; $i++) {
            $error = null;
            try {
                $r ??= connect();
                set_and_get($r, (string) $i);
            } catch (RedisException | RedisClusterException $error) {
                // phpredis connects again by itself where a command finds the connection closed. Where that fails too, the object has
                // no connection until connect() is called. A RedisCluster does not come back either, and may crash PHP, also without
                // pontoon: a new request to a web server has a new one.
                if ($r instanceof RedisCluster || $up === false) {
                    $r = null;
                }
            }
            if ($up !== ($error === null)) {
                $up = $error === null;
                echo $up ? "up\n" : "down\n";
                if (!$up) {
                    fwrite(STDERR, "{$error->getMessage()}\n");
                }
            }
            [$readable, $none] = [[STDIN], null];
            if (stream_select($readable, $none, $none, 0, 20000) && fread(STDIN, 1024) === '') {
                return;
            }
        }
    },
    'leftover' => function () {
        $r = connect('left over');
        set_and_get($r, 'x');
        $r->close();
    },
];

try {
    $scenarios[$scenario]();
    echo 'ok phpredis ', phpversion('redis'), "\n";
} catch (Throwable $error) {
    fwrite(STDERR, "{$error->getMessage()} at {$error->getFile()}:{$error->getLine()}\n{$error->getTraceAsString()}\n");
    exit(1);
}
