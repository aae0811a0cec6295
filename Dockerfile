# The server in a container: `docker compose up`. docs/deployment.md says what it may do on its host, and why.

# The index of all architectures; Debian 13.
ARG DEBIAN=debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f

FROM ${DEBIAN} AS build
WORKDIR /src
COPY . .
ENV CI=true
RUN scripts/prerequisites.sh run && scripts/build.sh release
# The official release, compared with the SHA-256 that the program has.
RUN mkdir /firecracker && target/release/rds setup --dir /firecracker

FROM ${DEBIAN}
# QEMU is for hosts where KVM does not work.
ARG PACKAGES="ca-certificates curl e2fsprogs nftables qemu-system-x86"
RUN apt-get update && apt-get install --yes --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/rds /src/target/release/rds-agent /firecracker/firecracker /firecracker/jailer /usr/local/bin/
COPY LICENSE /usr/share/doc/run-dat-sheesh/
ENV BIND_ADDRESS=0.0.0.0 STORAGE_ROOT=/var/lib/run-dat-sheesh
VOLUME /var/lib/run-dat-sheesh
EXPOSE 3000
HEALTHCHECK --interval=10s --start-period=60s CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:3000/readyz"]
ENTRYPOINT ["/usr/local/bin/rds"]
CMD ["serve"]
