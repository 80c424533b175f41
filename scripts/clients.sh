# Sourced: makes the environments that the tests drive real SDKs in, under target/clients.

ensure_clients() {
    command -v python3 >/dev/null 2>&1 && python3 -c 'import venv, ensurepip' 2>/dev/null \
        || install_packages python3 python3-venv
    command -v npm >/dev/null 2>&1 || install_packages nodejs npm
    mkdir -p target/clients
    python_environment otel-python tests/clients/otel-python/requirements.txt
    python_environment langfuse-2 tests/clients/langfuse-python/requirements-2.txt
    python_environment langfuse-3 tests/clients/langfuse-python/requirements-3.txt
    python_environment langfuse-4 tests/clients/langfuse-python/requirements-4.txt
    python_environment langfuse-5 tests/clients/langfuse-python/requirements-5.txt
    python_environment langfuse-integrations tests/clients/langfuse-integrations/requirements.txt
    python_environment instrumentations tests/clients/instrumentations/requirements.txt
    node_environment langfuse-js-3
    node_environment langfuse-js-4
    node_environment langfuse-js-5
    node_environment otel-js
    node_environment vercel-ai
    CARGO_TARGET_DIR=target/clients/otel-rust-target cargo build --quiet --locked \
        --manifest-path tests/clients/otel-rust/Cargo.toml
    CARGO_TARGET_DIR=target/clients/published-rust cargo build --quiet --locked \
        --manifest-path tests/clients/published-rust/Cargo.toml
}

# python_environment NAME REQUIREMENTS: a virtual environment, made anew when its requirements change.
python_environment() {
    local dir=target/clients/$1
    if ! cmp -s "$2" "$dir/requirements.txt"; then
        rm -rf "$dir"
        python3 -m venv "$dir"
        "$dir/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
        cp "$2" "$dir/requirements.txt"
    fi
}

# node_environment NAME: what tests/clients/NAME/package.json names, installed beside a copy of it.
node_environment() {
    local from=tests/clients/$1 dir=target/clients/$1
    if ! cmp -s "$from/package-lock.json" "$dir/package-lock.json"; then
        rm -rf "$dir"
        mkdir -p "$dir"
        cp "$from/package.json" "$dir/"
        cp "$from/package-lock.json" "$dir/package-lock.json.new"
        mv "$dir/package-lock.json.new" "$dir/package-lock.json"
        npm ci --silent --no-audit --no-fund --prefix "$dir" || { rm -rf "$dir"; return 1; }
    fi
}
