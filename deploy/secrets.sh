#!/bin/sh
# Write the secrets that compose.yaml mounts, each once: what is there stays.
# `OWNER_PASSWORD` and `READER_PASSWORD` (letters and digits) choose the passwords. The folder is closed to others;
# the files are not, because the user within a container reads them.
set -eu
folder="${1:-.data/secrets}"
umask 022
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

once() { # name value
    [ -s "$1" ] || printf '%s' "$2" > "$1"
}
random() { openssl rand -hex 24; }

once owner_password "${OWNER_PASSWORD:-$(random)}"
once reader_password "${READER_PASSWORD:-$(random)}"
once database_url "postgresql://tally:$(cat owner_password)@database:5432/tally"
once reader_database_url "postgresql://tally_reader:$(cat reader_password)@database:5432/tally"
once grafana_password "$(random)"
once metrics_secret "$(random)"
once auth_clients "prometheus:$(printf '%s' "$(cat metrics_secret)" | openssl dgst -sha256 -r | cut -d' ' -f1):admin"
if [ ! -s tls_key ]; then # for this machine only: put a real certificate into the same files
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout tls_key -out tls_certificate 2>/dev/null
    chmod 644 tls_key
fi
