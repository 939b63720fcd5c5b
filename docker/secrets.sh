#!/usr/bin/env bash
# Makes the keys that docker/compose.yaml needs, once, into docker/secrets (or the folder named).
# NEW_KEY is the command that makes one; the default is the gateway's image.
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/secrets}
mkdir -p "$folder"
if [ -e "$folder/compose.env" ]; then
    echo "$folder/compose.env is there already; remove $folder to begin again" >&2
    exit 1
fi
in_image="docker run --rm --user $(id -u):$(id -g) --volume $folder:$folder proxy-grm/gateway:${VERSION:-0.1.0} python -m service new-key"
new_key=${NEW_KEY:-$in_image}
random() { python3 -c 'import secrets; print(secrets.token_hex(24))' 2>/dev/null || openssl rand -hex 24; }

worker=$($new_key worker --role admin --file "$folder/keys.toml")
$new_key client --file "$folder/keys.toml" > "$folder/client-key"
redis=$(random)
cat > "$folder/compose.env" <<EOF
PROXY_GRM_WORKER__API_KEY=$worker
PROXY_GRM_ENGINE_API_KEY=$(random)
PROXY_GRM_REDIS_URL=redis://:$redis@redis:6379/0
REDIS_PASSWORD=$redis
EOF
chmod 644 "$folder/keys.toml" # digests, for a container of another user
chmod 755 "$folder"
echo "made $folder/compose.env, keys.toml and client-key" >&2
