variable "issuer" {
  type        = string
  description = "The broker's `issuer`, exactly as its configuration has it."

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$", var.issuer))
    error_message = "The issuer is an https URL in lower case, without a slash at its end."
  }
}

variable "audience" {
  type        = string
  default     = "sts.amazonaws.com"
  description = "The `assertion.audience` of the target. One of the instance's own is better than the default: docs/targets/aws.md."

  validation {
    condition     = length(var.audience) > 0 && length(var.audience) <= 255
    error_message = "The audience has 1 to 255 characters."
  }
}

variable "target" {
  type        = string
  default     = "aws/prod"
  description = "What the target is called in cambio.yaml."

  validation {
    condition     = can(regex("^[a-z0-9-]+(/[a-z0-9-]+)?$", var.target))
    error_message = "A target is called like `aws/prod`."
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
  description = "By role of the target: who may have it, as the broker names them (`github:repository_id:1296269`; no pattern), and what it may do."
  type = map(object({
    subjects             = list(string)
    policy_arns          = optional(list(string), [])
    permissions_boundary = optional(string)
    max_session_duration = optional(number, 3600)
  }))

  validation {
    condition     = length(var.roles) > 0 && alltrue([for name, role in var.roles : can(regex("^[a-z0-9-]{1,57}$", name))])
    error_message = "At least one role; lower-case letters, digits and `-` name it."
  }

  validation {
    condition = alltrue(flatten([
      for role in var.roles : concat(
        [length(role.subjects) > 0],
        [for subject in role.subjects : can(regex("^[a-z0-9-]+:.+$", subject)) && !can(regex("[*?]", subject))],
      )
    ]))
    error_message = "Each role names its subjects, such as `github:repository_id:1296269`, whole: no `*`, no `?`."
  }

  validation {
    condition     = alltrue([for role in var.roles : role.max_session_duration >= 3600 && role.max_session_duration <= 43200])
    error_message = "AWS takes 3600 to 43200 seconds."
  }
}
