<?php
// What an application with phpredis sees of an outage: outage.py says how. Arguments: a scenario, a port.

[$scenario, $port] = [$argv[1], (int) $argv[2]];
set_error_handler(fn($level, $message) => fwrite(STDERR, "$message\n") !== false);
$told = [];

function tell($kind, $message)
{
    global $told;
    fwrite(STDERR, "$message\n");
    if (!isset($told[$kind])) {
        echo $kind === 'connection' ? "connection error\n" : "other error: $message\n";
    }
    $told[$kind] = true;
}

/** Repeats a call until it returns a value. An application takes false for a key that does not exist. */
function repeat($call)
{
    for (;;) {
        try {
            $value = $call();
            if ($value !== false) {
                return $value;
            }
            global $redis;
            tell('other', 'false, no exception: ' . $redis->getLastError());
        } catch (RedisException $error) {
            tell('connection', $error->getMessage());
        }
        usleep(50000);
    }
}

$redis = new Redis();
repeat(fn() => $redis->connect('127.0.0.1', $port));
repeat(fn() => $redis->mGet(['k']));
echo "up\n";
if ($scenario === 'wait') {
    repeat(fn() => $redis->blPop(['queue'], 0));
    echo "popped\n";
}
