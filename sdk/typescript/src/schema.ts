// Made of docs/openapi.json by `npm run types`.

export interface paths {
    "/auth/login": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in
         * @description Sets the cookie `rds_session`.
         */
        post: operations["sessions_login"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/auth/logout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Sign out */
        post: operations["sessions_logout"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/auth/me": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who is signed in */
        get: operations["sessions_me"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The process answers */
        get: operations["operation_live"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/internal/v1/peer/invoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Call a peer
         * @description With the bearer token in `/workspace/.rds/peer-bridge.json` of a running VM, for that VM. Code in the VM needs no
         *     network for this: its proxies send the same over the channel out of the VM.
         */
        post: operations["peers_invoke"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Numbers for Prometheus
         * @description Here with `METRICS_TOKEN` as the bearer token, if the server has one; without a token on `METRICS_ADDR`.
         */
        get: operations["operation_guarded"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The database answers too */
        get: operations["operation_ready"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/activity": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What happened lately, newest first */
        get: operations["admin_activity"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/api-keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List API keys */
        get: operations["api_keys_list"];
        put?: never;
        /** Make an API key */
        post: operations["api_keys_create"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/api-keys/{id}/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Revoke an API key */
        post: operations["api_keys_revoke"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * What happens from now on
         * @description Server-sent events named `activity`; each holds an event with `meta` parsed. A listener that is too slow misses some.
         *     The stream ends with the session.
         */
        get: operations["admin_events"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/overview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What there is, and how much of the machine is in use */
        get: operations["admin_overview"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/webhooks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List webhooks */
        get: operations["webhooks_list"];
        put?: never;
        /**
         * Make a webhook
         * @description Events are sent by POST, signed as the Standard Webhooks specification says, and tried again for some twelve hours.
         */
        post: operations["webhooks_create"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/webhooks/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Delete a webhook, with all that waits for it */
        delete: operations["webhooks_delete"];
        options?: never;
        head?: never;
        /** Change a webhook */
        patch: operations["webhooks_change"];
        trace?: never;
    };
    "/v1/admin/webhooks/{id}/deliveries": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What was sent to a webhook lately, newest first */
        get: operations["webhooks_deliveries"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/admin/webhooks/{id}/test": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Send a webhook an event for a test */
        post: operations["webhooks_test"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/audit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List peer calls, or export them
         * @description The list is newest first. An export (`Accept: application/x-ndjson`, or `format=jsonl`) is oldest first, one line for
         *     each record: `{"hash":"...","record":{...}}`. The bytes of `record` are those that its hash was taken over, together
         *     with the hash of the line before; `rds audit verify` checks a whole export. A record that does not say what it is searched
         *     by is followed by a line `{"damaged":SEQUENCE}`.
         */
        get: operations["audit_list"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/audit/head": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Where the log ends */
        get: operations["audit_end"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List images */
        get: operations["images_list"];
        put?: never;
        /** Make an image without files */
        post: operations["images_create"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One image */
        get: operations["images_get"];
        put?: never;
        post?: never;
        /** Delete an image */
        delete: operations["images_delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}/bundle": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Upload a zip archive with vmlinux, rootfs.ext4 or modules.cpio, at any depth
         * @description At most 3 GiB, of modules 64 MiB. Until the upload is whole and verified the image stays as it was.
         */
        put: operations["images_put_bundle"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}/kernel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Upload the kernel: an ELF vmlinux or a bzImage for x86-64
         * @description At most 3 GiB, of modules 64 MiB. Until the upload is whole and verified the image stays as it was.
         */
        put: operations["images_put_kernel"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}/modules": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Upload the kernel's modules: a newc cpio archive of modules/
         * @description At most 3 GiB, of modules 64 MiB. Until the upload is whole and verified the image stays as it was.
         */
        put: operations["images_put_modules"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}/rootfs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Upload the root filesystem: ext4, without a partition table
         * @description At most 3 GiB, of modules 64 MiB. Until the upload is whole and verified the image stays as it was.
         */
        put: operations["images_put_rootfs"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/images/{id}/set-default": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Make an image the default */
        post: operations["images_set_default"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/peers/approvals": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List calls that wait for approval */
        get: operations["peers_approvals"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/peers/approvals/{id}/approve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Approve a call */
        post: operations["peers_approve"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/peers/approvals/{id}/deny": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Deny a call */
        post: operations["peers_deny"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/snapshots": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List snapshots */
        get: operations["snapshots_list"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/snapshots/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Delete a snapshot
         * @description VMs that were made from it are not touched.
         */
        delete: operations["snapshots_delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List VMs */
        get: operations["vms_list"];
        put?: never;
        /**
         * Create a VM
         * @description The reply comes when the VM runs and its agent answers. A create that fails leaves nothing behind. With an
         *     `Idempotency-Key` header, the same key and body within a day give the first answer again.
         */
        post: operations["vms_create"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Get a VM */
        get: operations["vms_get"];
        put?: never;
        post?: never;
        /**
         * Delete a VM
         * @description In any state. Nothing of it is left.
         */
        delete: operations["vms_delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/exec": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Run a shell command
         * @description A command that fails is still a 200. At the time limit every process it started is killed and `exitCode` is -1. The
         *     header `x-rds-guest-duration-us` tells how long the program ran, in microseconds, as the guest measured it.
         */
        post: operations["run_exec"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/exec-logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List what was run in a VM */
        get: operations["vms_exec_logs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/exec/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Run a shell command and stream its output
         * @description Server-sent events: `stdout` and `stderr` carry a JSON string, `exit` the object `{exitCode, timedOut, truncated}`,
         *     `error` an object `{message}` if the VM is lost. Closing the connection kills the program.
         */
        post: operations["run_exec_stream"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/files/content": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Read a file */
        get: operations["files_read"];
        /**
         * Write a file
         * @description At most 10 MiB. A file that is there is replaced.
         */
        put: operations["files_write"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/files/download": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Download a directory or file as a tar.gz */
        get: operations["files_download"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/files/list": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List a directory */
        get: operations["files_list"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/files/stat": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Look at a file or directory */
        get: operations["files_stat"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/files/upload": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Upload a tar.gz
         * @description At most 10 MiB, 10,000 entries and 250 MiB unpacked; files and directories at relative paths only. It is checked
         *     whole before anything is written. Files belong to uid 1000; of their modes the executable bit is kept.
         */
        post: operations["files_upload"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/fork": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Copy a running VM
         * @description Each fork goes on where the VM was at one moment, with its disk as it was then, and shares what neither changes. It has
         *     a host name, machine id, random source and clock of its own, the size, limits and labels of the VM, and no name; secrets
         *     and links as this request grants them, none by itself. All are made, or none. The VM stands still for a moment and goes
         *     on; refused with 409 if it has had secrets since it was started or is linked to peers. With an `Idempotency-Key` header,
         *     the same key and body within a day give the first answer again.
         */
        post: operations["vms_fork"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Read the end of a VM's log */
        get: operations["vms_logs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/network": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Change what a VM may reach
         * @description At once, if it runs; a connection that is not allowed any more ends. What is absent stays as it is.
         */
        patch: operations["vms_patch_network"];
        trace?: never;
    };
    "/v1/vms/{id}/pause": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Pause a running VM
         * @description It stands still in memory and takes no processor time. Whatever needs it wakes it: running code, files, a call to it by
         *     a peer, a snapshot. Refused with 409 while calls into it or out of it are under way, so that none is lost; programs
         *     that were left running in the background are held up. Stopping and deleting work as ever.
         */
        post: operations["vms_pause"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/peers/sync": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sync a VM's peers
         * @description Reads the manifests of all its providers and replaces `/workspace/peers` and `/workspace/.rds` at once.
         */
        post: operations["peers_sync"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/peers/{alias}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Take a link away
         * @description The VM's code can call that provider no more. A running VM's peers are synced if all other providers can be read;
         *     otherwise its code sees the proxies until the next sync.
         */
        delete: operations["peers_unlink"];
        options?: never;
        head?: never;
        /**
         * Change a link
         * @description What is absent stays. A running VM's peers are synced; when that fails, nothing is changed.
         */
        patch: operations["peers_patch"];
        trace?: never;
    };
    "/v1/vms/{id}/pty": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Open a terminal (WebSocket) */
        get: operations["run_pty"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Resume a paused VM
         * @description It goes on where it was. Its wall clock is set right; its monotonic clock has not moved.
         */
        post: operations["vms_resume"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/run-js": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Run JavaScript under Node.js
         * @description ES modules and CommonJS both work. The global `result` gives structured values back.
         */
        post: operations["run_run_js"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/run-ts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Run TypeScript or JavaScript under Deno
         * @description Either `code` or `path`; `path` wins. The global `result` gives structured values back.
         */
        post: operations["run_run_ts"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/secrets": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Replace a VM's secrets
         * @description Without a restart: programs that begin after the reply see the new ones, those that run keep the old. They are
         *     written down first. If the VM's agent does not take them, that is an error; it is given them again until it does, and
         *     what is asked of the VM meanwhile waits. Needs `VM_SECRET_KEY`.
         */
        put: operations["vms_set_secrets"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/snapshots": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Keep a VM as it is now
         * @description `user_overlay`: its disk. The guest writes down what it has in memory and is held for a moment, so the disk is whole. No
         *     running program is in it. `vm`: its memory and its disk. The VM stands still meanwhile. A VM from it has the same size,
         *     and programs go on in it, with a host name, machine id, random source and clock of its own; refused with 409 if the VM
         *     has had secrets since it was started or is linked to peers. A snapshot outlives its VM. With an `Idempotency-Key` header, the same key within a day gives the first answer again.
         */
        post: operations["snapshots_take"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Start a stopped VM */
        post: operations["vms_start"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/vms/{id}/stop": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Stop a running VM
         * @description Its file systems are synced first; its disk is kept.
         */
        post: operations["vms_stop"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        Account: {
            email: string;
        };
        /** @description Something that happened, as clients see it. */
        ActivityEvent: {
            /**
             * Format: date-time
             * @description RFC 3339, milliseconds, `Z`.
             */
            createdAt: string;
            /** @description Which one. */
            entityId?: string | null;
            /** @description What kind of thing it happened to. */
            entityType?: string | null;
            /** @description UUID. */
            id: string;
            /** @description For people. */
            message: string;
            /** @description The same parsed; in the event stream and what webhooks are sent only. */
            meta?: Record<string, never> | null;
            /** @description JSON text. */
            metaJson?: string | null;
            /**
             * @description What kind of event it is.
             * @example vm.created
             */
            type: string;
        };
        /** @description A key without its secret. */
        ApiKey: {
            createdAt: components["schemas"]["Time"];
            expiresAt?: components["schemas"]["Time"] | null;
            id: string;
            lastUsedAt?: components["schemas"]["Time"] | null;
            name: string;
            /** @example rds_0123456789ab */
            prefix: string;
            revokedAt?: components["schemas"]["Time"] | null;
        };
        /** @description What is recorded of a call. */
        AuditCall: {
            /** @description The alias that was called. */
            alias: string;
            /**
             * Format: int64
             * @description Bytes of the arguments as JSON.
             */
            argsBytes: number;
            /** @description Id of the calling VM. */
            consumer: string;
            /**
             * Format: int64
             * @description From the call's arrival to its answer, in microseconds.
             */
            durationUs: number;
            /** @description Export as called. */
            export: string;
            /** @description Module as called. */
            module: string;
            outcome: components["schemas"]["CallOutcome"];
            /** @description Id of the VM behind the alias. */
            provider?: string;
            /**
             * Format: int64
             * @description Bytes of the result as JSON.
             */
            resultBytes: number;
            /** @description The policy's rule that refused it or was warned about. */
            rule?: string;
            /**
             * Format: int64
             * @description Generation of the provider's secrets that it ran with.
             */
            secretVersion?: number;
            /**
             * Format: int64
             * @description Places where a secret was struck out of the answer.
             */
            strikes: number;
            /**
             * Format: date-time
             * @description When it came.
             */
            time: string;
        };
        /** @description A peer call. */
        AuditEntry: components["schemas"]["AuditCall"] & {
            /** @description Hash of its record, which seals all records before it too. */
            hash: string;
            /**
             * Format: int64
             * @description Its place in the log, from 0.
             */
            sequence: number;
        };
        /** @description Where the log ends. Keep it elsewhere: it shows later whether anything before was changed or cut off. */
        AuditHead: {
            /**
             * @description Hash of the last one; zeros without any.
             * @example 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
             */
            hash: string;
            /**
             * Format: int64
             * @description Records in the log.
             */
            records: number;
        };
        AuditPage: {
            /** @description Newest first. */
            entries: components["schemas"]["AuditEntry"][];
            /** @description Whether there are older ones. */
            hasMore: boolean;
        };
        /** @description The body of a failed call. */
        CallError: {
            /**
             * @description For programs; stable.
             * @example peer_threw
             */
            code: string;
            /**
             * @description For people: the provider's own message, when its code threw.
             * @example no such mailbox
             */
            message: string;
            /** @description The thrown error's name, when the provider's code threw. */
            name?: string | null;
            /** @description Finds the cause of a failure of the server in its log. */
            requestId?: string | null;
            /** @description The rule of the link's policy that refused the call. */
            rule?: string | null;
        };
        /**
         * @description How a call ended: `refused` before the provider was entered, `failed` because the provider or its worker was not there
         *     or went away.
         * @enum {string}
         */
        CallOutcome: "returned" | "threw" | "refused" | "timed_out" | "cancelled" | "failed";
        /** @description The result of a call, in the form of the wire. */
        CallResult: {
            /** @description What the provider's function returned. */
            result: unknown;
        };
        Capacity: {
            /** Format: int64 */
            capacityBytes: number;
            /** Format: int64 */
            usedBytes: number;
        };
        /** @description Body of `PATCH /v1/admin/webhooks/{id}`. What is absent stays. */
        ChangeWebhook: {
            /** @description Whether events are sent. While a webhook is disabled nothing is kept for it; what waited before waits on. */
            enabled?: boolean | null;
            /** @description Which events. */
            eventTypes?: string[] | null;
            /** @description For people. */
            name?: string | null;
            /** @description True to have another secret made. */
            rotateSecret?: boolean | null;
            /** @description Another secret. Deliveries that wait are signed with it, too. */
            secret?: string | null;
            /** @description Where to. */
            url?: string | null;
        };
        /** @description SHA-256 in hexadecimal of what was uploaded. Files that were given in place have none. */
        Checksums: {
            kernel?: string | null;
            modules?: string | null;
            rootfs?: string | null;
        };
        Counts: {
            /**
             * Format: int64
             * @description VMs that are RUNNING.
             */
            activeVms: number;
            /** Format: int64 */
            snapshots: number;
            /**
             * Format: int64
             * @description Images that a VM can be made from.
             */
            templates: number;
        };
        Cpu: {
            /** Format: int32 */
            capacityCores: number;
            /**
             * Format: double
             * @description 0 to 1.
             */
            usagePct: number;
            /** Format: double */
            usedCores: number;
        };
        CreateApiKey: {
            /**
             * Format: date-time
             * @description RFC 3339.
             */
            expiresAt?: string | null;
            name: string;
        };
        CreateImage: {
            description?: string;
            name: string;
        };
        /** @description Body of `POST /v1/vms`. Unknown fields are ignored, as the public API does. */
        CreateVm: {
            /** @description Names that the VM may reach besides, such as `api.github.com` or `*.googleapis.com`. */
            allowDomains?: string[];
            /** @description What the VM may reach: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`. */
            allowIps: string[];
            /**
             * Format: double
             * @description Number of virtual CPUs, an integer from 1 to `MAX_CPU`.
             * @example 1
             */
            cpu: number;
            /**
             * Format: double
             * @description Size of the writable disk in MiB, rounded up, at least 32; `OVERLAY_SIZE_BYTES` if absent.
             */
            diskSizeMb?: number | null;
            /** @description What is done with an idle VM: `pause` (default) or `delete`. */
            idleAction?: components["schemas"]["IdleAction"];
            /**
             * Format: double
             * @description Seconds without a call into the VM or out of it after which `idleAction` is done.
             */
            idleTimeoutSeconds?: number | null;
            /** @description The image to start from; the default image if absent. */
            imageId?: string | null;
            /** @description Free labels, at most 32, keys and values of at most 256 bytes. */
            labels?: {
                [key: string]: string;
            };
            /** @description How fast it may use its disk and its network, and how much of its memory it is to keep to. */
            limits?: components["schemas"]["LimitVm"];
            /**
             * Format: double
             * @description Memory in MiB, an integer from 128 to `MAX_MEM_MB`.
             * @example 256
             */
            memMb: number;
            /** @description A name for people: 1 to 64 letters, digits, `.`, `_`, `-`; unique among live VMs. */
            name?: string | null;
            /** @description Whether anything may leave the VM at all. */
            outboundInternet?: boolean;
            /** @description Links to provider VMs, whose SDKs the code in this VM may call. At most 32; aliases are unique. */
            peerLinks?: components["schemas"]["PeerLink"][];
            /**
             * @description Environment of the VM's secrets, each `NAME=value`. Needs `VM_SECRET_KEY`. They are sealed at rest and given only
             *     to what runs in this VM.
             */
            secretEnv?: string[];
            /** @description An older name of `userOverlaySnapshotId`, which goes before it. */
            snapshotId?: string | null;
            /**
             * Format: double
             * @description Seconds after which the VM is deleted, from its creation.
             */
            ttlSeconds?: number | null;
            /** @description A snapshot to start from: the disk is as that VM's was, and memory too if the snapshot has it. */
            userOverlaySnapshotId?: string | null;
        };
        /** @description Body of `POST /v1/admin/webhooks`. */
        CreateWebhook: {
            /** @description True if absent. */
            enabled?: boolean | null;
            /**
             * @description Kinds of events: `vm.created`, `vm.*` for all of VMs, or `*` for all. At most 64.
             * @example [
             *       "vm.created",
             *       "image.*"
             *     ]
             */
            eventTypes: string[];
            /** @description For people; the URL's host if absent. */
            name?: string | null;
            /** @description What deliveries are signed with: `whsec_` and 24 to 64 bytes in base64. The server makes one if absent. */
            secret?: string | null;
            /**
             * @description An http or https URL, without a user and a password.
             * @example https://example.com/hooks/rds
             */
            url: string;
        };
        CreatedApiKey: components["schemas"]["ApiKey"] & {
            /** @description The whole key. It is shown this once. */
            apiKey: string;
        };
        /** @description The body of every error. */
        ErrorBody: {
            /**
             * @description For programs; stable.
             * @example not_found
             */
            code: string;
            /**
             * @description For people.
             * @example VM not found
             */
            message: string;
            /** @description Finds the cause of an internal error in the server's log. */
            requestId?: string | null;
        };
        /** @description One run. */
        ExecLogEntry: {
            /**
             * Format: int64
             * @description How long the program ran in the guest, in milliseconds.
             */
            durationMs: number;
            /** @description UUID. */
            id: string;
            /** @description What was asked; of variables their names. */
            input: unknown;
            /**
             * @description What the program did: `exitCode`, `stdout`, `stderr`, `result`, `error`. Long texts are cut, and values beyond 64 KiB
             *     left out. Of a run that did not end in front of its client `outcome` says `cancelled` or `lost` instead of `exitCode`.
             */
            result: unknown;
            /**
             * Format: date-time
             * @description When it began (RFC 3339).
             */
            timestamp: string;
            /** @description `exec`, `run-ts` or `run-js`. */
            type: string;
        };
        /** @description Newest first. */
        ExecLogs: {
            /** @description The entries. */
            entries: components["schemas"]["ExecLogEntry"][];
            /** @description Whether there are older ones. */
            hasMore: boolean;
        };
        /** @description Body of `POST /v1/vms/:id/exec` and `/exec/stream`. */
        ExecRequest: {
            /**
             * @description A shell command line.
             * @example echo hello
             */
            cmd: string;
            /** @description Working directory; `/workspace` if absent. */
            cwd?: string | null;
            /** @description Variables of this call. */
            env?: {
                [key: string]: string;
            } | null;
            /**
             * Format: double
             * @description Time limit in milliseconds; 30000 if absent.
             */
            timeoutMs?: number | null;
        };
        /** @description The entries of a directory, sorted by name. */
        FileList: {
            entries: components["schemas"]["FileStat"][];
            /** @description Whether there are more than these. */
            truncated: boolean;
        };
        /** @description A file or directory. Symbolic links are reported, not followed. */
        FileStat: {
            /**
             * Format: int32
             * @description Permission bits.
             */
            mode: number;
            /**
             * Format: date-time
             * @description RFC 3339.
             */
            modifiedAt: string;
            name: string;
            /**
             * Format: int64
             * @description Length in bytes; 0 for anything but a file.
             */
            size: number;
            /** @description `file`, `directory`, `symlink` or `other`. */
            type: string;
        };
        /** @description Body of `POST /v1/vms/:id/fork`. */
        ForkVm: {
            /**
             * Format: double
             * @description How many, from 1 to 100; 1 if absent.
             * @example 2
             */
            count?: number | null;
            /** @description How fast each fork may use its disk and its network, and how much of its memory it is to keep to. No limit is inherited. */
            limits?: components["schemas"]["LimitVm"];
            /** @description Links of each fork to provider VMs. None is inherited. */
            peerLinks?: components["schemas"]["PeerLink"][];
            /** @description Environment of the secrets of each fork, each `NAME=value`. None is inherited. */
            secretEnv?: string[];
        };
        /** @description The VMs that a fork made. */
        Forks: {
            /** @description As many as were asked for. */
            vms: components["schemas"]["Vm"][];
        };
        /** @description That the server is well. */
        Health: {
            /** @description Always true. */
            ok: boolean;
        };
        /**
         * @description What is done with an idle VM.
         * @enum {string}
         */
        IdleAction: "pause" | "delete";
        /** @description What VMs are made from. */
        Image: {
            /**
             * Format: int64
             * @description Length of the root filesystem.
             */
            baseRootfsBytes?: number | null;
            checksums: components["schemas"]["Checksums"];
            createdAt: components["schemas"]["Time"];
            description: string;
            /** @example img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11 */
            id: string;
            /** @description Whether a VM that names no image gets this one. */
            isDefault: boolean;
            kernelFilename?: string | null;
            kernelUploadedAt?: components["schemas"]["Time"] | null;
            modulesFilename?: string | null;
            modulesUploadedAt?: components["schemas"]["Time"] | null;
            name: string;
            rootfsFilename?: string | null;
            rootfsUploadedAt?: components["schemas"]["Time"] | null;
            /** @description Why there is none. */
            seedError?: string | null;
            /**
             * Format: int64
             * @description What it takes on the server's disk.
             */
            seedSizeBytes?: number | null;
            /** @example seed-img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11 */
            seedSnapshotId?: string | null;
            /** @description How it is about the memory that VMs of this image start from. */
            seedStatus: components["schemas"]["SeedStatus"];
            seedUpdatedAt?: components["schemas"]["Time"] | null;
        };
        /**
         * @description How fast a VM shall be allowed to use its disk and its network, and how much of its memory it shall keep to; what is absent has
         *     no limit.
         */
        LimitVm: {
            /**
             * Format: double
             * @description Bytes a second that it reads from its writable disk and writes to it, an integer from 1048576 to 8000000000.
             * @example 50000000
             */
            diskBytesPerSecond?: number | null;
            /**
             * Format: double
             * @description Reads and writes of that disk a second, an integer from 100 to 1000000.
             * @example 2000
             */
            diskOpsPerSecond?: number | null;
            /**
             * Format: double
             * @description MiB of its memory that it is to keep to, an integer from 128 to its `memMb`. It leaves the rest alone until a program
             *     needs it.
             * @example 192
             */
            memoryMb?: number | null;
            /**
             * Format: double
             * @description Bytes a second that it sends, and as many that it receives, an integer from 16384 to 8000000000.
             * @example 10000000
             */
            networkBytesPerSecond?: number | null;
        };
        LoggedOut: {
            ok: boolean;
        };
        Login: {
            email: string;
            /** Format: password */
            password: string;
        };
        /** @description What a VM sent and received since it was started, as last looked at. */
        NetworkView: {
            /**
             * Format: int64
             * @description Bytes that passed, both ways.
             */
            bytes: number;
            /**
             * Format: int64
             * @description Packets of the VM's that did not pass.
             */
            dropped: number;
            /**
             * Format: int64
             * @description Packets that passed, both ways.
             */
            packets: number;
        };
        Overview: {
            counts: components["schemas"]["Counts"];
            cpu: components["schemas"]["Cpu"];
            memory: components["schemas"]["Capacity"];
            storage: components["schemas"]["Capacity"];
        };
        /** @description A change of a link; what is absent stays. */
        PatchLink: {
            /** @description The whole new policy; `{}` allows everything that the manifest declares. */
            policy?: unknown;
            /**
             * @description `hidden` or `mounted`.
             * @example mounted
             */
            sourceMode?: string | null;
        };
        /** @description A change of what a VM may reach. What is absent stays. */
        PatchNetwork: {
            /** @description Names that it may reach besides, such as `api.github.com` or `*.googleapis.com`. */
            allowDomains?: string[] | null;
            /**
             * @description What it may reach then: IPv4 addresses or CIDR ranges, at most `MAX_ALLOW_IPS`. A private network needs an entry
             *     of its own.
             */
            allowIps?: string[] | null;
            /** @description Whether anything may leave the VM at all. */
            outboundInternet?: boolean | null;
        };
        /** @description A call of a consumer's code. */
        PeerCall: {
            /** @description The provider's name in the calling VM. */
            alias: string;
            /** @description Empty if absent. */
            args?: unknown[] | null;
            /** @description `default` if absent. */
            exportName?: string | null;
            /**
             * @description Absolute path of the module in the provider.
             * @example /workspace/sdk/mail.ts
             */
            modulePath: string;
            /**
             * Format: int64
             * @description Time limit in milliseconds, at most 120000; 30000 if absent.
             */
            timeoutMs?: number | null;
        };
        /** @description A link to a provider VM. */
        PeerLink: {
            /**
             * @description The provider's name in this VM: letters, digits, `_` and `-`.
             * @example mail
             */
            alias: string;
            /** @description What the consumer may do with the provider; everything that its manifest declares, if absent. */
            policy?: unknown;
            /**
             * @description `hidden` (default): the consumer sees proxies. `mounted`: also a copy of the provider's files. A reply has it always.
             * @example hidden
             */
            sourceMode?: string;
            /** @description The provider. */
            vmId: string;
        };
        /** @description A call that waits for a person. */
        PendingCall: {
            /** @description The alias it calls. */
            alias: string;
            /** @description The arguments, so that a person can decide. */
            args: unknown[];
            /** @description The VM whose code calls. */
            consumer: string;
            /** @description The export. */
            export: string;
            /** @description What an answer names. */
            id: string;
            /** @description The module, relative to `/workspace`. */
            module: string;
            /** @description The VM behind the alias. */
            provider: string;
            /**
             * Format: date-time
             * @description RFC 3339, milliseconds, `Z`.
             */
            requestedAt: string;
        };
        /** @description What a program did. */
        RunReply: {
            /** @description What it gave to `result.error`, or its uncaught exception. */
            error?: unknown;
            /**
             * Format: int32
             * @description Its exit status; 128 + signal if a signal ended it; -1 at the time limit.
             */
            exitCode: number;
            /** @description The JSON value that it gave to `result.set`. */
            result?: unknown;
            /** @description Its standard error, likewise. */
            stderr: string;
            /** @description Its standard output, at most 1,000,000 bytes; bytes that are no UTF-8 are replaced. */
            stdout: string;
            /** @description Whether output was dropped for its size. */
            truncated: boolean;
        };
        /** @description Body of `POST /v1/vms/:id/run-ts` and `/run-js`. Either `code` or `path`; `path` wins. */
        RunRequest: {
            /**
             * @description Whether the program may use the network (run-ts); the VM's `outboundInternet` if absent. The firewall applies.
             * @default null
             */
            allowNet?: boolean | null;
            /**
             * @description Arguments of the program.
             * @default null
             */
            args?: string[] | null;
            /**
             * @description The text of a module.
             * @default null
             * @example result.set({ answer: 42 })
             */
            code?: string | null;
            /**
             * @description Further flags of `deno run` (run-ts).
             * @default null
             */
            denoFlags?: string[] | null;
            /**
             * @description Variables of this call, each `NAME=value`.
             * @default null
             */
            env?: string[] | null;
            /**
             * @description Further flags of `node` (run-js).
             * @default null
             */
            nodeFlags?: string[] | null;
            /**
             * @description A file under `/workspace`; a relative path is relative to it.
             * @default null
             */
            path?: string | null;
            /**
             * Format: double
             * @description Time limit in milliseconds; 30000 if absent.
             * @default null
             */
            timeoutMs?: number | null;
        };
        /**
         * @description Whether there is a seed of the size that every image gets.
         * @enum {string}
         */
        SeedStatus: "none" | "building" | "ready" | "error";
        /** @description New secrets of a VM. */
        SetSecrets: {
            /** @description All of them, each `NAME=value`; an empty list takes them away. */
            secretEnv: string[];
        };
        ShownWebhook: components["schemas"]["Webhook"] & {
            /** @description What deliveries are signed with, if that is new. It is shown this once. */
            secret?: string | null;
        };
        /** @description What VMs start from. */
        Snapshot: {
            /** @description The seed that the VM had been started from, which may be gone. Nothing of it is needed. */
            baseSeedSnapshotId?: string | null;
            /** Format: int32 */
            cpu: number;
            /** @description Of a seed that is not there: since when it is being made, or known to fail. */
            createdAt: components["schemas"]["Time"];
            /**
             * Format: int64
             * @description Size of the disk in MiB.
             */
            diskSizeMb?: number | null;
            /** @description Why a seed could not be made. */
            error?: string | null;
            /**
             * Format: double
             * @description How long the VM could not write while it was taken, in milliseconds.
             */
            frozenMs?: number | null;
            /** @description Whether it holds a disk that belongs to its memory. */
            hasDisk: boolean;
            /** @description Whether it holds a VM's writable disk. */
            hasOverlay: boolean;
            /** @example seed-img-7c1f2a90-5e0b-4a58-a7d8-0d6f7a3c9b11 */
            id: string;
            /** @description The image that it belongs to. */
            imageId: string;
            kind: components["schemas"]["SnapshotKind"];
            /**
             * Format: int32
             * @description MiB.
             */
            memMb: number;
            /**
             * Format: double
             * @description How long the VM stood still while it was taken with its memory, in milliseconds.
             */
            pausedMs?: number | null;
            /**
             * Format: int64
             * @description What it takes on the server's disk.
             */
            sizeBytes: number;
            /** @description The VM that it was taken of, which may be gone. */
            sourceVmId?: string | null;
            status?: components["schemas"]["SeedStatus"] | null;
        };
        /**
         * @description What a snapshot is of.
         * @enum {string}
         */
        SnapshotKind: "user_overlay" | "vm" | "image_seed";
        /** @description What to keep of a VM. */
        TakeSnapshot: {
            kind?: components["schemas"]["SnapshotKind"] | null;
        };
        TestDelivery: {
            /** @description Of the delivery. */
            id: string;
        };
        /**
         * Format: date-time
         * @example 2026-01-31T12:00:00.000Z
         */
        Time: string;
        /** @description How long each part of a start took, in milliseconds. */
        Timings: {
            /**
             * Format: double
             * @description Until the agent's first answer.
             * @default 0
             */
            agentMs?: number;
            /**
             * Format: double
             * @description Starting the virtual machine monitor, if the VM was booted.
             * @default 0
             */
            bootMs?: number;
            /**
             * Format: double
             * @description Telling the guest who it is.
             * @default 0
             */
            configureMs?: number;
            /**
             * Format: double
             * @description Making the writable disk and the initramfs.
             * @default 0
             */
            diskMs?: number;
            /**
             * Format: double
             * @description Making the network interface and its rules.
             * @default 0
             */
            networkMs?: number;
            /**
             * Format: double
             * @description Putting its peers in place.
             * @default 0
             */
            peersMs?: number;
            /**
             * Format: double
             * @description Until it was its turn, and the image was looked up.
             * @default 0
             */
            queueMs?: number;
            /**
             * Format: double
             * @description Restoring the machine from a seed, if it was not booted.
             * @default 0
             */
            restoreMs?: number;
            /**
             * Format: double
             * @description All of the start.
             * @default 0
             */
            totalMs?: number;
        };
        /** @description A VM as clients see it. */
        Vm: {
            /** @description What it may reach by name. */
            allowDomains: string[];
            /** @description What it may reach. */
            allowIps: string[];
            /**
             * Format: int32
             * @description Virtual CPUs.
             */
            cpu: number;
            /**
             * Format: date-time
             * @description RFC 3339, milliseconds, `Z`.
             */
            createdAt: string;
            /**
             * Format: int64
             * @description Size of its writable disk in MiB.
             */
            diskSizeMb: number;
            /** @description Why it is in state ERROR, or stopped though nobody asked. */
            error?: string | null;
            /**
             * Format: date-time
             * @description When it will be deleted by itself.
             */
            expiresAt?: string | null;
            /**
             * @description Address of its `eth0`; absent where VMs have no network.
             * @example 172.16.0.2
             */
            guestIp?: string | null;
            /** @description Lower-case UUID. */
            id: string;
            idleAction?: components["schemas"]["IdleAction"] | null;
            /**
             * Format: int64
             * @description Its `idleTimeoutSeconds`.
             */
            idleTimeoutSeconds?: number | null;
            /** @description The image it runs on. */
            imageId: string;
            /** @description Its labels. */
            labels: {
                [key: string]: string;
            };
            limits?: components["schemas"]["VmLimits"] | null;
            /**
             * Format: int32
             * @description Memory in MiB.
             */
            memMb: number;
            /** @description Its name. */
            name?: string | null;
            network?: components["schemas"]["NetworkView"] | null;
            /** @description Whether anything may leave it. */
            outboundInternet: boolean;
            /** @description The providers it is linked to. */
            peerLinks: components["schemas"]["PeerLink"][];
            /**
             * @description `boot` for every plain create, however the VM really came up; `snapshot` for a copy of another VM's memory.
             * @example boot
             */
            provisionMode: string;
            /**
             * @description How it really came up the last time: `boot`, `seed`, `pool`, or `snapshot` for a copy of another VM's memory.
             * @example boot
             */
            startedFrom?: string | null;
            /** @description Where it is in its life. */
            state: components["schemas"]["VmState"];
            timings?: components["schemas"]["Timings"] | null;
            /**
             * Format: int64
             * @description Its `ttlSeconds`.
             */
            ttlSeconds?: number | null;
        };
        /** @description How fast a VM may use its disk and its network, and how much of its memory it is to keep to; what is absent has no limit. */
        VmLimits: {
            /**
             * Format: int64
             * @description Bytes a second that it reads from its writable disk and writes to it.
             */
            diskBytesPerSecond?: number | null;
            /**
             * Format: int64
             * @description Reads and writes of that disk a second.
             */
            diskOpsPerSecond?: number | null;
            /**
             * Format: int32
             * @description MiB of its memory that it is to keep to. It leaves the rest alone until a program needs it.
             */
            memoryMb?: number | null;
            /**
             * Format: int64
             * @description Bytes a second that it sends, and as many that it receives.
             */
            networkBytesPerSecond?: number | null;
        };
        /** @description The end of a log. */
        VmLog: {
            /** @description Its last lines, oldest first. */
            lines: string[];
            /** @description Whether there are earlier lines. */
            truncated: boolean;
            /** @description The type that was asked for. */
            type: string;
            /** @description When it was last written to (RFC 3339); absent if there is no such log. */
            updatedAt?: string | null;
        };
        /**
         * @description The state of a VM, as clients see it.
         * @enum {string}
         */
        VmState: "CREATED" | "STARTING" | "RUNNING" | "PAUSED" | "STOPPING" | "STOPPED" | "ERROR";
        /** @description A place that events are sent to. */
        Webhook: {
            /**
             * Format: date-time
             * @description RFC 3339, milliseconds, `Z`.
             */
            createdAt: string;
            /** @description Whether events are sent. A receiver that answers 410 (Gone) ends that. */
            enabled: boolean;
            /**
             * @description Which ones.
             * @example [
             *       "vm.created",
             *       "image.*"
             *     ]
             */
            eventTypes: string[];
            /** @description UUID. */
            id: string;
            /** @description For people. */
            name: string;
            /**
             * @description Where to.
             * @example https://example.com/hooks/rds
             */
            url: string;
        };
        /** @description One event for one webhook. */
        WebhookDelivery: {
            /**
             * Format: int64
             * @description How often it was tried.
             */
            attempts: number;
            /**
             * Format: date-time
             * @description When it happened.
             */
            createdAt: string;
            /**
             * Format: int64
             * @description What that took.
             */
            durationMs?: number | null;
            /**
             * @description Why it did not succeed.
             * @example no connection could be made
             */
            error?: string | null;
            /**
             * @description Kind of event.
             * @example vm.created
             */
            event: string;
            /** @description UUID, the same in all attempts: the receiver sees it as `webhook-id`. */
            id: string;
            /**
             * Format: date-time
             * @description When it was tried last.
             */
            lastAttemptAt?: string | null;
            /**
             * Format: date-time
             * @description When it is tried next.
             */
            nextAttemptAt?: string | null;
            /**
             * @description `waiting`, `delivered`, `failed` after the last attempt or since the receiver is gone, or `dropped` because too many
             *     waited.
             * @example delivered
             */
            state: string;
            /**
             * Format: int64
             * @description The HTTP status that came back.
             */
            status?: number | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    sessions_login: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Login"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Account"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    sessions_logout: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["LoggedOut"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    sessions_me: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Account"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    operation_live: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    peers_invoke: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PeerCall"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CallResult"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CallError"];
                };
            };
        };
    };
    operation_guarded: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description In the OpenMetrics format */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/openmetrics-text": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    operation_ready: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    admin_activity: {
        parameters: {
            query?: {
                /** @description How many, 1 to 1000; 100 if absent. */
                limit?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ActivityEvent"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    api_keys_list: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKey"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    api_keys_create: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateApiKey"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreatedApiKey"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    api_keys_revoke: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The key is refused from now on */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    admin_events: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A stream that does not end */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    admin_overview: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Overview"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_list: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Webhook"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_create: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateWebhook"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ShownWebhook"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Nothing is sent to it from now on */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_change: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ChangeWebhook"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ShownWebhook"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_deliveries: {
        parameters: {
            query?: {
                /** @description How many, 1 to 200; 50 if absent. */
                limit?: number | null;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WebhookDelivery"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    webhooks_test: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is sent like any other; the log of deliveries says how that went */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TestDelivery"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    audit_list: {
        parameters: {
            query?: {
                /** @description Id of the calling VM. */
                consumer?: string;
                /** @description Id of the called VM. */
                provider?: string;
                /** @description The alias that was called. */
                alias?: string;
                /** @description The export that was called. */
                export?: string;
                /** @description How the call ended. */
                outcome?: "returned" | "threw" | "refused" | "timed_out" | "cancelled" | "failed";
                /** @description The first moment (RFC 3339). */
                since?: string;
                /** @description The first moment that is too late (RFC 3339). */
                until?: string;
                /** @description How many, 1 to 1000; 100 if absent. An export has no limit. */
                limit?: number;
                /** @description Only records before this `sequence`, for the next page. */
                before?: number;
                /** @description `jsonl` for an export, as with `Accept: application/x-ndjson`. */
                format?: "json" | "jsonl";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AuditPage"];
                    "application/x-ndjson": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    audit_end: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AuditHead"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_list: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Image"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_create: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateImage"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Image"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Image"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is gone */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_put_bundle: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/zip": string;
            };
        };
        responses: {
            /** @description It is in place */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_put_kernel: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description It is in place */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_put_modules: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description It is in place */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_put_rootfs: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description It is in place */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    images_set_default: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description VMs that name no image get this one */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_approvals: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Oldest first */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PendingCall"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_approve: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It goes on */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_deny: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is refused */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    snapshots_list: {
        parameters: {
            query?: {
                /** @description `user` (default), `internal` or `all`. */
                scope?: "user" | "internal" | "all";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Oldest first */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Snapshot"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    snapshots_delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is gone */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_list: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All VMs, oldest first */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Vm"][];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_create: {
        parameters: {
            query?: never;
            header?: {
                /** @description At most 255 characters */
                "Idempotency-Key"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateVm"];
            };
        };
        responses: {
            /** @description It runs */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Vm"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Vm"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is gone */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    run_exec: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ExecRequest"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunReply"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_exec_logs: {
        parameters: {
            query?: {
                /** @description Entries, 1 to 200; 50 if absent. */
                limit?: number;
                /** @description `all` (default), `exec`, `run-ts` or `run-js`. */
                type?: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ExecLogs"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    run_exec_stream: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ExecRequest"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_read: {
        parameters: {
            query: {
                /** @description A path under `/workspace`. */
                path: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_write: {
        parameters: {
            query: {
                /** @description A path under `/workspace`; its directories are made. */
                path: string;
                /** @description Whether the file is a program. */
                executable?: boolean;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description It is written */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_download: {
        parameters: {
            query: {
                /** @description A path under `/workspace`. */
                path: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/gzip": string;
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_list: {
        parameters: {
            query: {
                /** @description A path under `/workspace`. */
                path: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FileList"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_stat: {
        parameters: {
            query: {
                /** @description A path under `/workspace`. */
                path: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FileStat"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    files_upload: {
        parameters: {
            query: {
                /** @description A directory under `/workspace`; it is made. */
                dest: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/gzip": string;
                "application/octet-stream": string;
                "application/x-gzip": string;
            };
        };
        responses: {
            /** @description It is unpacked */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_fork: {
        parameters: {
            query?: never;
            header?: {
                /** @description At most 255 characters */
                "Idempotency-Key"?: string | null;
            };
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["ForkVm"] | null;
            };
        };
        responses: {
            /** @description They run */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Forks"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_logs: {
        parameters: {
            query?: {
                /** @description `firecracker.log` (default), `firecracker.stdout.log`, `firecracker.stderr.log`, `serial.log` or `vmm.log`. */
                type?: string;
                /** @description Lines from the end, 1 to 1000. */
                tail?: number;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["VmLog"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_patch_network: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PatchNetwork"];
            };
        };
        responses: {
            /** @description It holds */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_pause: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is paused */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_sync: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description They are up to date */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_unlink: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
                alias: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is gone */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    peers_patch: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
                alias: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PatchLink"];
            };
        };
        responses: {
            /** @description It is changed */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    run_pty: {
        parameters: {
            query?: {
                /** @description Width in characters; 80 if absent. */
                cols?: number;
                /** @description Height in characters; 24 if absent. */
                rows?: number;
                /** @description A command line to run instead of a shell. */
                cmd?: string;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The connection is a WebSocket now */
            101: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_resume: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It runs */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    run_run_js: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RunRequest"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunReply"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    run_run_ts: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RunRequest"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunReply"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_set_secrets: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetSecrets"];
            };
        };
        responses: {
            /** @description The VM has them */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    snapshots_take: {
        parameters: {
            query?: never;
            header?: {
                /** @description At most 255 characters */
                "Idempotency-Key"?: string | null;
            };
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["TakeSnapshot"] | null;
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Snapshot"];
                };
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_start: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It runs */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    vms_stop: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is stopped */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
}
