<?php
// What load.py does, with phpredis. The argument is its JSON. phpredis only asks sentinels: an application connects to what they name, and
// asks again once a connection is lost.

$given = json_decode($argv[1], true);
$counts = ['acknowledged' => 0, 'failed' => 0, 'read' => [], 'errors' => []];
set_error_handler(fn($level, $message) => fwrite(STDERR, "$message\n") !== false);

function count_error($text)
{
    global $counts;
    $text = substr($text, 0, 160);
    $counts['errors'][$text] = ($counts['errors'][$text] ?? 0) + 1;
}

/** The first answer of a sentinel. */
function ask($call)
{
    global $given;
    foreach ($given['sentinels'] as [$host, $port]) {
        try {
            $options = ['host' => ($given['sentinel_tls'] ? 'tls://' : '') . $host, 'port' => $port];
            if ($given['sentinel_tls']) {
                $options['ssl'] = ['cafile' => $given['ca']];
            }
            if ($given['sentinel_password']) {
                $options['auth'] = $given['sentinel_password'];
            }
            if ($answer = $call(new RedisSentinel($options))) {
                return $answer;
            }
        } catch (RedisException $error) {
            count_error('sentinel: ' . $error->getMessage());
        }
    }
    throw new RedisException('no sentinel answers');
}

function connect($address)
{
    global $given;
    $context = $given['server_tls'] ? ['stream' => ['cafile' => $given['ca']]] : [];
    if ($given['server_password']) {
        $context['auth'] = $given['server_password'];
    }
    $redis = new Redis();
    $redis->connect(($given['server_tls'] ? 'tls://' : '') . $address[0], (int) $address[1], 0, null, 0, 0, $context);
    return $redis;
}

function primary()
{
    global $given;
    return connect(ask(fn($sentinel) => $sentinel->getMasterAddrByName($given['name'])));
}

function replica()
{
    global $given;
    $replicas = ask(fn($sentinel) => $sentinel->slaves($given['name']));
    $up = array_filter($replicas, fn($replica) => $replica['flags'] === 'slave');
    if (!$up) {
        throw new RedisException('no replica is up');
    }
    $replica = $up[array_rand($up)];
    return connect([$replica['ip'], $replica['port']]);
}

/** The result of a call, with a new connection if the last one failed; null after an error. */
function attempt(&$redis, $connect, $call)
{
    try {
        $redis ??= $connect();
        $result = $call($redis);
        if ($result !== false) {
            return $result;
        }
        count_error('false: ' . $redis->getLastError());
    } catch (RedisException $error) {
        count_error($error->getMessage());
    }
    $redis = null;
    return null;
}

[$primary, $replica, $up] = [null, null, false];
for (;;) {
    [$readable, $none] = [[STDIN], null];
    $stopping = stream_select($readable, $none, $none, 0) > 0;
    $wrote = attempt($primary, 'primary', fn($redis) => $redis->incr($given['key']));
    $role = attempt($replica, 'replica', fn($redis) => $redis->rawCommand('ROLE'));
    $counts[$wrote === null ? 'failed' : 'acknowledged']++;
    if ($role !== null) {
        $counts['read'][$role[0]] = ($counts['read'][$role[0]] ?? 0) + 1;
    }
    if ($wrote !== null && $role !== null) {
        if (!$up) {
            echo "up\n";
        }
        $up = true;
        if ($stopping) {
            break;
        }
    }
    usleep(5000);
}
$counts['read'] = (object) $counts['read'];
$counts['errors'] = (object) $counts['errors'];
echo json_encode($counts), "\n";
