# Helpers of the scripts in this folder: say what is missing, and install it if possible.

say() { echo "oiyolo: $*" >&2; }

# install_packages WHY PACKAGE...: with apt, as root or with passwordless sudo.
install_packages() {
    local why=$1 as_root=()
    shift
    if ! command -v apt-get >/dev/null; then
        say "$why, and it cannot be installed: there is no apt-get."
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            say "$why. As root: apt-get install $*"
            return 1
        fi
        as_root=(sudo -n)
    fi
    say "$why; installing $*"
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
