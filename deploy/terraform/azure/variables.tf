variable "issuer" {
  type        = string
  description = "The broker's `issuer`, exactly as its configuration has it."

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.issuer))
    error_message = "The issuer is an https URL in lower case, without a slash at its end."
  }
}

variable "target" {
  type        = string
  default     = "azure/prod"
  description = "What the target is called in cambio.yaml."

  validation {
    condition     = can(regex("^[a-z0-9-]+(/[a-z0-9-]+)?$", var.target))
    error_message = "A target is called like `azure/prod`."
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
  description = "The roles of the target; each gets an application of its own, and what it may do where (a role of Azure at a scope)."
  type = map(object({
    assignments = optional(list(object({ role = string, scope = string })), [])
    token_scope = optional(string, "https://management.azure.com/.default")
  }))

  validation {
    condition     = length(var.roles) > 0 && alltrue([for name, _ in var.roles : can(regex("^[a-z0-9-]{1,40}$", name))])
    error_message = "At least one role; 1 to 40 lower-case letters, digits and `-` name it."
  }

  validation {
    condition = alltrue(flatten([
      for role in var.roles : [for it in role.assignments : startswith(it.scope, "/")]
    ]))
    error_message = "A scope is the id of a resource, such as `/subscriptions/…/resourceGroups/orders`."
  }

  validation {
    condition     = alltrue([for role in var.roles : endswith(role.token_scope, "/.default")])
    error_message = "Entra gives client credentials a scope that ends in `/.default`, and no other."
  }
}
