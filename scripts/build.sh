#!/usr/bin/env bash
# Builds the program and the guest agent: `build.sh release` or `build.sh dev`.

source "$(dirname "$0")/common.sh"
profile=${1:?release or dev}

step "Build the guest agent" scripts/agent.sh
step "Build the server" cargo build "${quiet[@]}" --locked --package rds --profile "$profile"
