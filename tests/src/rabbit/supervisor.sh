# Runs epmd and one RabbitMQ node until standard input closes or says how to end.
# Arguments: epmd, rabbitmq-server, working directory, "remove" to remove that directory at the end.
epmd=$1 server=$2 directory=$3 remove=$4
cd "$directory" || exit 1

"$epmd" -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >>epmd.log 2>&1 &
epmd_pid=$!
# A session of its own, so that one signal reaches the server and everything it starts.
setsid "$server" </dev/null >>startup.log 2>&1 &
server_pid=$!
echo "$server_pid"

# Blocks until the parent writes a word or dies.
read -r how
if [ "$how" != kill ]; then
    kill -TERM "$server_pid" 2>/dev/null
    tenths=0
    while kill -0 -- "-$server_pid" 2>/dev/null && [ "$tenths" -lt 200 ]; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
fi
kill -KILL -- "-$server_pid" 2>/dev/null
kill -KILL "$epmd_pid" 2>/dev/null
wait
if [ "$remove" = remove ] && [ "$how" != kill ] && [ "$how" != keep ]; then
    cd / && rm -rf -- "$directory"
fi
