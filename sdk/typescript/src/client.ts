import createClient, { type Client as Api } from "openapi-fetch";
import { RdsError } from "./error.ts";
import type { paths } from "./schema.ts";
import { Vm } from "./vm.ts";
import { data, pairs, type Schemas, type Variables } from "./wire.ts";

/** Where the server is, and who asks. */
export interface ClientOptions {
  /** The server's address; `RDS_URL` of the environment, or `http://127.0.0.1:3000`. */
  url?: string;
  /** An API key; `RDS_API_KEY` of the environment. */
  apiKey?: string;
}

/** What a new VM is to be: the body of `POST /v1/vms`, with one processor and 256 MiB where nothing else is said. */
export type CreateOptions = Partial<Omit<Schemas["CreateVm"], "secretEnv">> & { secretEnv?: Variables };

/** A server of run-dat-sheesh. It holds no connection that would have to be closed. */
export class Client {
  /**
   * Every operation of the API, typed by its OpenAPI document: `client.api.GET("/v1/images")`. What is no success is thrown as
   * an {@link RdsError}.
   */
  readonly api: Api<paths>;

  constructor({ url, apiKey }: ClientOptions = {}) {
    const environment = globalThis.process?.env ?? {};
    const key = apiKey ?? (environment["RDS_API_KEY"] || undefined);
    // The error of whoever sends it would show it.
    if (key !== undefined && !/^[!-~]+$/.test(key)) throw new TypeError("an API key is of visible ASCII characters");
    this.api = createClient<paths>({
      baseUrl: url ?? (environment["RDS_URL"] || "http://127.0.0.1:3000"),
      headers: key === undefined ? {} : { "x-api-key": key },
      // The key would go along.
      redirect: "error",
    });
    this.api.use({
      async onResponse({ response }) {
        if (!response.ok) throw await RdsError.of(response);
      },
    });
  }

  /** Makes a VM. It runs when this resolves. Who asked for it deletes it, or gives it `ttlSeconds`. */
  async createVm({ secretEnv, ...options }: CreateOptions = {}): Promise<Vm> {
    const body = { cpu: 1, memMb: 256, allowIps: [], ...options, ...(secretEnv && { secretEnv: pairs(secretEnv) }) };
    return new Vm(this, await data(this.api.POST("/v1/vms", { body })));
  }

  /** The VM with this id. */
  async vm(id: string): Promise<Vm> {
    return new Vm(this, await data(this.api.GET("/v1/vms/{id}", { params: { path: { id } } })));
  }

  /** All VMs. */
  async vms(): Promise<Vm[]> {
    return (await data(this.api.GET("/v1/vms"))).map((vm) => new Vm(this, vm));
  }
}
