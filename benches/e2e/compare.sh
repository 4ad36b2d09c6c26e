#!/bin/bash
# Compares pgspan with PgBouncer in front of the same server: CPU time per query and latency, in rounds that take turns, so that
# whatever else the machine does hits both. pgspan annotates and measures as it does by default, and every client has a trace.
#
#   benches/e2e/compare.sh [PGSPAN] [PGBOUNCER]
#   ROUNDS=5 SECONDS_EACH=5 CLIENTS="1 16 100" MODES="simple extended prepared"
set -euo pipefail

pgspan=$(realpath "${1:-target/release/pgspan}")
pgbouncer=${2:-$(command -v pgbouncer || echo /usr/sbin/pgbouncer)}
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-5} clients=${CLIENTS:-1 16 100} modes=${MODES:-simple extended prepared}
[ -x "$pgspan" ] && [ -x "$pgbouncer" ] || { echo "needs $pgspan and $pgbouncer (scripts/deps bench)" >&2; exit 1; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1); bin=${bin:-$(pg_config --bindir)}

dir=$(mktemp -d /tmp/pgspan-bench.XXXXXX)
as_user=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$dir"
    as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    cd /; "${as_user[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT
cd "$dir"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
server_port=$(free_port) pgspan_port=$(free_port) http_port=$(free_port) pgbouncer_port=$(free_port)

"${as_user[@]}" "$bin/initdb" -D data -U postgres -A trust -N --locale=C >/dev/null
"${as_user[@]}" "$bin/pg_ctl" -D data -l server.log -w start \
    -o "-p $server_port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c fsync=off -c max_connections=200" >/dev/null
psql -X -q -h 127.0.0.1 -p "$server_port" -U postgres -c 'CREATE ROLE app LOGIN' -c 'CREATE DATABASE app OWNER app'
pgbench -h 127.0.0.1 -p "$server_port" -U app -i -s 10 -q app >/dev/null 2>&1

cat >config.toml <<TOML
[listen]
address = "127.0.0.1:$pgspan_port"
[http]
address = "127.0.0.1:$http_port"
[auth]
method = "trust"
[databases.app]
host = "127.0.0.1"
port = $server_port
[users.app]
TOML
cat >pgbouncer.ini <<INI
[databases]
app = host=127.0.0.1 port=$server_port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir =
auth_type = trust
auth_file = userlist.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits,options
INI
echo '"app" ""' >userlist.txt
chmod 755 "$dir"; chmod 644 config.toml pgbouncer.ini userlist.txt
"$pgspan" run config.toml >pgspan.log 2>&1 & pids+=($!); pgspan_pid=$!
"${as_user[@]}" "$pgbouncer" -q pgbouncer.ini >pgbouncer.log 2>&1 & pids+=($!); pgbouncer_pid=$!
for port in "$pgspan_port" "$pgbouncer_port"; do
    for _ in $(seq 100); do psql -X -q -h 127.0.0.1 -p "$port" -U app -c 'SELECT 1' app >/dev/null 2>&1 && continue 2; sleep 0.1; done
    cat pgspan.log pgbouncer.log >&2; exit 1
done

# Prints: CPU microseconds per transaction, average latency in milliseconds. Fields 14 and 15 of stat: user and system time.
measure() { # pid port clients mode
    local before after said count
    before=$(awk '{print $14 + $15}' "/proc/$1/stat")
    said=$(PGOPTIONS='-c pgspan.traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' \
        pgbench -h 127.0.0.1 -p "$2" -U app -n -S -c "$3" -j "$(( $3 < 4 ? $3 : 4 ))" -T "$seconds" -M "$4" app 2>>pgbench.log) || true
    after=$(awk '{print $14 + $15}' "/proc/$1/stat")
    count=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' <<<"$said")
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="${count:-0}" \
        -v latency="$(sed -n 's/^latency average = \([0-9.]*\) ms/\1/p' <<<"$said")" \
        'BEGIN { if (n == 0) print "- -"; else printf "%.2f %s\n", ticks / hz * 1e6 / n, latency }'
}

median() { sort -n | awk '{a[NR] = $1} END { if (NR) print a[int((NR + 1) / 2)]; else print "-" }'; }

printf '%-10s %8s  %22s  %22s  %s\n' mode clients 'CPU us/query' 'latency ms' 'CPU ratio'
printf '%-10s %8s  %10s %11s  %10s %11s\n' '' '' pgspan pgbouncer pgspan pgbouncer
for mode in $modes; do
    for count in $clients; do
        : >results
        for round in $(seq "$rounds"); do
            # Who goes first changes from round to round.
            if [ $((round % 2)) = 0 ]; then order="pgspan pgbouncer"; else order="pgbouncer pgspan"; fi
            for who in $order; do
                pid_name=${who}_pid port_name=${who}_port
                echo "$round $who $(measure "${!pid_name}" "${!port_name}" "$count" "$mode")" >>results
            done
        done
        of() { awk -v who="$1" -v field="$2" '$2 == who && $3 != "-" {print $field}' results | median; }
        ratio=$(awk '$3 != "-" {cpu[$1, $2] = $3; rounds[$1]} END {for (r in rounds) if (cpu[r, "pgbouncer"] > 0 && cpu[r, "pgspan"] > 0) print cpu[r, "pgspan"] / cpu[r, "pgbouncer"]}' results | median)
        printf '%-10s %8s  %10s %11s  %10s %11s  %s\n' "$mode" "$count" "$(of pgspan 3)" "$(of pgbouncer 3)" "$(of pgspan 4)" "$(of pgbouncer 4)" "$ratio"
    done
done
echo "(- : PgBouncer before 1.21 has no prepared statements in transaction mode; each figure is the median of $rounds rounds of $seconds s)"
