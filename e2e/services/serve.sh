#!/usr/bin/env bash
# One service in namespaces of its own: its data bound to where Debian's user for it has its home, and no root.
#   serve.sh SERVICE DIRECTORY [ARGUMENT…]      a SERVICE that is a directory: RabbitMQ of the system in there
set -euo pipefail
service=$1 data=$2
shift 2
mount --make-rprivate /
# Names come from here alone: who looks up its own address must not wait for a DNS server that is not there.
hosts=$(mktemp)
printf '127.0.0.1 localhost\n10.77.0.1 node\n' > "$hosts"
chmod 644 "$hosts"
mount --bind "$hosts" /etc/hosts
mount --bind /dev/null /etc/resolv.conf
rm "$hosts"

as() { # USER HOME COMMAND…: an environment of its own
    local user=$1 home=$2
    shift 2
    cd "$home"
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --no-new-privs \
        env -i HOME="$home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
}

case $service in
    epmd) as epmd / epmd ;;
    rabbitmq)
        mount --bind "$data" /var/lib/rabbitmq
        as rabbitmq /var/lib/rabbitmq "$@" /usr/lib/rabbitmq/bin/rabbitmq-server
        ;;
    /*)
        mount --bind "$data" "$service/var/lib/rabbitmq"
        mount -t proc proc "$service/proc"
        mount --rbind /dev "$service/dev"
        cp /etc/hosts /etc/resolv.conf "$service/etc/"
        exec chroot --userspec rabbitmq:rabbitmq "$service" env -i HOME=/var/lib/rabbitmq LANG=C.UTF-8 \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" /usr/lib/rabbitmq/bin/rabbitmq-server
        ;;
    initdb | postgres)
        mount --bind "$data" /var/lib/postgresql
        as postgres /var/lib/postgresql "$@"
        ;;
    tls) as nobody / "$@" ;;
esac
