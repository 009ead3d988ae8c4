<?php
// The benchmark's application with phpredis. ../applications.py describes the arguments and the output. PHP has no threads.

[, $scenario, $seconds, $address, $authority] = $argv;

function connect()
{
    global $address, $authority;
    $redis = new Redis();
    if ($address[0] === '/') {
        $redis->connect($address);
    } elseif ($authority !== '') {
        $redis->connect('tls://127.0.0.1', (int) $address, 0, null, 0, 0, ['stream' => ['cafile' => $authority]]);
    } else {
        $redis->connect('127.0.0.1', (int) $address);
    }
    return $redis;
}

function pipeline($client)
{
    $pipeline = $client->pipeline();
    for ($i = 0; $i < 50; $i++) {
        $pipeline->get('small');
    }
    return strlen($pipeline->exec()[49]) === 64;
}

function reconnect()
{
    $client = connect();
    $length = strlen($client->get('small'));
    $client->close();
    return $length === 64;
}

// The number of requests of a step, and the step, which returns whether the reply was right.
$steps = [
    'single' => [1, fn ($client) => strlen($client->get('small')) === 64],
    'pipeline' => [50, pipeline(...)],
    'large' => [1, fn ($client) => strlen($client->get('large')) === 65536],
    'connect' => [1, reconnect(...)],
];
[$requests, $step] = $steps[$scenario];

/** Repeats the step. Returns the time of each in seconds. */
function run($client, $duration)
{
    global $step;
    $times = [];
    $now = hrtime(true);
    $until = $now + $duration * 1e9;
    while ($now < $until) {
        $step($client) || throw new Exception('wrong reply');
        $before = $now;
        $now = hrtime(true);
        $times[] = ($now - $before) / 1e9;
    }
    return $times;
}

function cpu()
{
    $used = getrusage();
    return $used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec'] + ($used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec']) / 1e6;
}

$client = connect();
run($client, $seconds / 4);
[$wall, $cpu] = [hrtime(true), cpu()];
$times = run($client, $seconds);
[$wall, $cpu] = [(hrtime(true) - $wall) / 1e9, cpu() - $cpu];
sort($times);
$at = fn ($part) => $times[(int) (count($times) * $part)];
echo json_encode(['requests' => count($times) * $requests, 'seconds' => $wall, 'cpu' => $cpu,
    'latencies' => ['p50' => $at(0.5), 'p99' => $at(0.99), 'p99.9' => $at(0.999)]]), "\n";
