# Sourced: makes sure that Postgres' programs are on this machine.

# Installs PostgreSQL from Debian's packages if it may, else says what to install.
ensure_postgres() {
    if [ -n "${DATABASE_URL:-}" ] || [ -n "${XTRACE_PG_BIN:-}" ] || have_postgres; then
        return
    fi
    install_packages postgresql
    have_postgres || { echo "PostgreSQL was installed, but initdb is not found; set XTRACE_PG_BIN" >&2; exit 1; }
}

have_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
        || { command -v pg_config >/dev/null 2>&1 && [ -x "$(pg_config --bindir)/initdb" ]; }
}

# Lets tests turn the clock of a process; they fail where this is missing.
ensure_faketime() {
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || install_packages faketime
}

# The pooler that a test puts between xtrace and Postgres. Debian starts it as a service; it is only run
# by the test.
ensure_pgbouncer() {
    command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || install_packages pgbouncer
}

# install_packages NAME...: from Debian's packages, as root or with sudo that asks nothing.
install_packages() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo -n)
    fi
    if [ "${XTRACE_INSTALL:-yes}" = no ]; then
        echo "Missing: $*; XTRACE_INSTALL=no keeps this from installing it" >&2
        exit 1
    fi
    if ! command -v apt-get >/dev/null 2>&1 || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
        echo "Missing: $*. Please install (Debian, Ubuntu): sudo apt-get install $*" >&2
        exit 1
    fi
    echo "installing from Debian's packages: $* (XTRACE_INSTALL=no installs nothing)" >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Rust, and the C compiler that two dependencies (ring, for TLS) are built with.
ensure_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        echo "Missing: a Rust toolchain. Please install it with rustup (https://rustup.rs)" >&2
        exit 1
    fi
    command -v cc >/dev/null 2>&1 || install_packages gcc libc6-dev
}
