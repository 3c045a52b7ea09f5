# Runs epmd and one RabbitMQ node until standard input closes or says how to end.
# Arguments: epmd, rabbitmq-server, working directory, "remove" to remove that directory at the end.
epmd=$1 server=$2 directory=$3 remove=$4
cd "$directory" || exit 1

"$epmd" -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >>epmd.log 2>&1 &
epmd_pid=$!
# Erlang starts an epmd of its own, which outlives everything, if it finds none.
tenths=0
until "$epmd" -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1 || [ "$tenths" -ge 100 ]; do
    sleep 0.1
    tenths=$((tenths + 1))
done
# A session of its own, so that one signal reaches the server and everything it starts.
setsid "$server" </dev/null >>startup.log 2>&1 &
server_pid=$!
echo "$server_pid"

# Blocks until the parent writes `stop` or `kill`, or closes the pipe by dropping the node or by dying.
read -r how
if [ "$how" = stop ] || { [ -z "$how" ] && [ "$remove" != remove ]; }; then
    kill -s TERM "$server_pid" 2>/dev/null
    tenths=0
    while kill -s 0 -- "-$server_pid" 2>/dev/null && [ "$tenths" -lt 200 ]; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
fi
kill -s KILL -- "-$server_pid" 2>/dev/null
kill -s KILL "$epmd_pid" 2>/dev/null
wait
# Nobody can start it again.
if [ -z "$how" ] && [ "$remove" = remove ]; then
    cd / && rm -rf -- "$directory"
fi
