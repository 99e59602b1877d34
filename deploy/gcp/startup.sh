#!/usr/bin/env bash
# Startup script of a Google Cloud VM that trains the project in a bucket. Compute Engine runs it as
# root at every boot, so that training resumes after a preemption, on the same disk or a new one.
# It installs oiyolo if necessary, and starts deploy/train_from_bucket.py as a service, which gets
# SIGTERM when the VM is shut down. When the training has ended, it copies the log to logs/ in the
# project's folder of the bucket, and ends the costs: it deletes the VM if an instance group made it,
# and powers it off otherwise.
#
# Metadata of the VM:
#   oiyolo-source   gs://... archive of the sources: git archive --prefix=src/ -o oiyolo.tar.gz HEAD
#   oiyolo-bucket   gs://... to which the project was pushed
#   oiyolo-extras   optional; such as [torch], to train with PyTorch
#
# Log: journalctl -u oiyolo
set -euo pipefail

root=${DESTDIR:-}
home=$root/opt/oiyolo
unit=$root/etc/systemd/system/oiyolo.service

# attribute NAME: print a value of the VM's metadata; nothing if it is not set.
attribute() {
    local host=${GCE_METADATA_HOST:-metadata.google.internal}
    curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \
        "http://$host/computeMetadata/v1/instance/attributes/$1" || true
}

require() {
    local value
    value=$(attribute "$1")
    [[ $value =~ ^gs://[A-Za-z0-9._/-]+$ ]] || {
        echo "oiyolo: the VM's metadata has no $1=gs://... (found: '$value')" >&2
        exit 2
    }
    echo "$value"
}

install_oiyolo() {
    local source extras
    source=$(require oiyolo-source)
    extras=$(attribute oiyolo-extras)
    rm -rf "$home"
    mkdir -p "$home"
    gcloud storage cp "$source" "$home/oiyolo.tar.gz"
    tar --extract --gzip --file "$home/oiyolo.tar.gz" --directory "$home"
    "$home/src/tools/make-venv" "$home/venv"
    "$home/venv/bin/python" -m pip install --quiet "$home/src$extras"
    touch "$home/installed"
}

write_unit() {
    local bucket
    bucket=$(require oiyolo-bucket)
    mkdir -p "${unit%/*}"
    cat >"$unit" <<UNIT
[Unit]
Description=Train the project in $bucket
Wants=network-online.target
After=network-online.target

[Service]
User=oiyolo
StateDirectory=oiyolo
Environment=HOME=/var/lib/oiyolo
ExecStart=$home/venv/bin/python $home/src/deploy/train_from_bucket.py $bucket --project /var/lib/oiyolo/project
ExecStopPost=+/bin/bash $home/src/deploy/gcp/startup.sh finish
# Only the main process gets SIGTERM: it stops darknet, and backs up. A spot VM has 30 seconds.
KillMode=mixed
TimeoutStopSec=25
UNIT
}

boot() {
    [[ -e $home/installed ]] || install_oiyolo
    write_unit
    id oiyolo >/dev/null 2>&1 || useradd --system --no-create-home oiyolo
    systemctl daemon-reload
    systemctl start --no-block oiyolo.service
}

# End the costs, unless the training was interrupted, by a shutdown or by `systemctl stop`.
finish() {
    local created_by project where place name
    if [[ ${EXIT_STATUS:-} == 130 || $(systemctl is-system-running || true) == stopping ]]; then
        return
    fi
    # The log vanishes with the VM; without it, the costs must end nevertheless.
    journalctl --unit oiyolo --no-pager |
        gcloud storage cp - "$(attribute oiyolo-bucket)/logs/$(hostname).txt" || true
    created_by=$(attribute created-by) # projects/7/zones/us-central1-a/instanceGroupManagers/boats
    if [[ $created_by == */instanceGroupManagers/* ]]; then
        IFS=/ read -r _ project where place _ name <<<"$created_by"
        gcloud compute instance-groups managed resize "$name" --size=0 \
            "--${where%s}=$place" --project="$project"
    else
        systemctl poweroff
    fi
}

case ${1:-boot} in
boot | finish) "${1:-boot}" ;;
*)
    echo "usage: startup.sh [boot | finish]" >&2
    exit 2
    ;;
esac
