variable "issuer" {
  type        = string
  description = "The broker's `issuer`, exactly as its configuration has it."

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.issuer))
    error_message = "The issuer is an https URL in lower case, without a slash at its end."
  }
}

variable "project" {
  type        = string
  description = "The project's id, not its number."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 lower-case letters, digits and `-`, and begins with a letter."
  }
}

variable "pool" {
  type        = string
  default     = "cambio"
  description = "What the workload identity pool is called. A deleted pool keeps its name for thirty days."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}[a-z0-9]$", var.pool)) && !startswith(var.pool, "gcp-")
    error_message = "4 to 32 lower-case letters, digits and `-`; `gcp-` is Google's."
  }
}

variable "target" {
  type        = string
  default     = "google/prod"
  description = "What the target is called in cambio.yaml."

  validation {
    condition     = can(regex("^[a-z0-9-]+(/[a-z0-9-]+)?$", var.target))
    error_message = "A target is called like `google/prod`."
  }
}

variable "environment" {
  type        = string
  default     = "prod"
  description = "The `environment` of the instance."

  validation {
    condition     = can(regex("^[a-z0-9-]+$", var.environment))
    error_message = "Lower-case letters, digits and `-`."
  }
}

variable "granted_by" {
  type        = list(string)
  default     = []
  description = "The policy files that may grant the target. None: nobody gets anything."

  validation {
    condition     = alltrue([for file in var.granted_by : can(regex("^[A-Za-z0-9._-]+[.]yaml$", file))])
    error_message = "Names of files in the policy directory, such as `deploy.yaml`."
  }
}

variable "roles" {
  description = "The roles of the target; each gets a service account of its own, whose rights are granted elsewhere."
  type        = map(object({ scopes = optional(list(string), ["https://www.googleapis.com/auth/cloud-platform"]) }))
  default     = { deploy = {} }

  validation {
    # `cambio-` before it: an account's id has at most 30 characters.
    condition     = length(var.roles) > 0 && alltrue([for name, _ in var.roles : can(regex("^[a-z0-9-]{1,23}$", name))])
    error_message = "At least one role; 1 to 23 lower-case letters, digits and `-` name it."
  }
}
