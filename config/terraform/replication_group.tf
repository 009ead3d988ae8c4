# The change from plaintext to TLS, in two applies. `terraform plan` must say "will be updated in-place", never "must be replaced".
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.47.0" # earlier versions replace the group
    }
  }
}

resource "aws_elasticache_replication_group" "sessions" {
  replication_group_id = "sessions"
  description          = "sessions"
  # The group's other arguments stay as they are.

  transit_encryption_enabled = true
  # The first apply. After `pontoon status` answers that TLS is safe to require, the second apply sets "required". AWS rejects both in one.
  transit_encryption_mode = "preferred"
  apply_immediately       = true

  lifecycle {
    prevent_destroy = true # an error instead of an empty group
  }
}
