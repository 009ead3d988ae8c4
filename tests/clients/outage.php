<?php
// What an application with phpredis sees of an outage: outage.py says how. Arguments: a scenario, a port.

[$scenario, $port] = [$argv[1], (int) $argv[2]];
set_error_handler(fn($level, $message) => fwrite(STDERR, "$message\n") !== false);
$told = [];
$redis = null;

function tell($kind, $message)
{
    global $told;
    fwrite(STDERR, "$message\n");
    if (!isset($told[$kind])) {
        echo $kind === 'connection' ? "connection error\n" : "other error: $message\n";
    }
    $told[$kind] = true;
}

/**
 * Repeats a call until it returns a value. An application takes false for a key that does not exist.
 *
 * Connects again after each exception, as frameworks do. A phpredis object that finds its connection closed after it has sent a request, and
 * before it waits for the reply, never connects again.
 */
function repeat($call)
{
    global $redis, $port;
    for (;;) {
        try {
            if (!$redis) {
                $new = new Redis();
                $new->connect('127.0.0.1', $port);
                $redis = $new;
            }
            $value = $call($redis);
            if ($value !== false) {
                return $value;
            }
            tell('other', 'false, no exception: ' . $redis->getLastError());
        } catch (RedisException $error) {
            $redis = null;
            tell('connection', $error->getMessage());
        }
        usleep(50000);
    }
}

repeat(fn($redis) => $redis->mGet(['k']));
echo "up\n";
if ($scenario === 'wait') {
    repeat(fn($redis) => $redis->blPop(['queue'], 0));
    echo "popped\n";
}
