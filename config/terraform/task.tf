# The task of config/ecs/preferred.json. Uses the provider of replication_group.tf. The cluster, the log group and the execution role
# must exist: see "ECS" in docs/deployment.md.
variable "region" {
  type = string
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "log_group" {
  description = "Name of the log group for both containers, such as /ecs/shop."
  type        = string
}

variable "shop_image" {
  description = "Image of the application, with its registry and tag."
  type        = string
}

variable "pontoon_image" {
  description = "Image of pontoon, with its registry and tag."
  type        = string
}

variable "upstreams" {
  description = "Addresses of the servers: the name that appears when TLS is turned on, and the name before that."
  type        = list(string)
}

variable "subnet_ids" {
  type = list(string)
}

variable "security_group_ids" {
  description = "Groups of the task. They must reach Redis, and port 2049 of the file system."
  type        = list(string)
}

variable "file_system_security_group_ids" {
  description = "Groups of the file system. They must admit port 2049 from the groups of the task."
  type        = list(string)
}

variable "execution_role_arn" {
  description = "Role with the managed policy AmazonECSTaskExecutionRolePolicy, to pull the images and write the logs."
  type        = string
}

data "aws_caller_identity" "current" {}

locals {
  pontoon = {
    name          = "pontoon"
    image         = var.pontoon_image
    essential     = true
    restartPolicy = { enabled = true, restartAttemptPeriod = 60 }
    command       = ["run"]
    environment = [
      { name = "PONTOON_UPSTREAM", value = join(",", var.upstreams) },
      { name = "PONTOON_TLS_MODE", value = "preferred" },
      { name = "PONTOON_TLS_UPGRADE", value = "drain" },
      { name = "PONTOON_STATE_FILE", value = "/var/lib/pontoon/state.json" },
      { name = "PONTOON_LOG_FORMAT", value = "json" },
    ]
    mountPoints = [{ sourceVolume = "state", containerPath = "/var/lib/pontoon" }]
    healthCheck = {
      command     = ["CMD", "/usr/local/bin/pontoon", "health", "--live"]
      interval    = 5
      timeout     = 3
      retries     = 3
      startPeriod = 10
    }
    startTimeout           = 60
    stopTimeout            = 40
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters = {
      capabilities = { drop = ["ALL"] }
    }
    ulimits           = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    cpu               = 64
    memoryReservation = 64
    logConfiguration = {
      logDriver = "awslogs"
      options   = { awslogs-group = var.log_group, awslogs-region = var.region, awslogs-stream-prefix = "pontoon" }
    }
  }
  shop = {
    name        = "shop"
    image       = var.shop_image
    essential   = true
    dependsOn   = [{ containerName = "pontoon", condition = "HEALTHY" }]
    environment = [{ name = "REDIS_URL", value = "redis://127.0.0.1:6379" }]
    stopTimeout = 30
    logConfiguration = {
      logDriver = "awslogs"
      options   = { awslogs-group = var.log_group, awslogs-region = var.region, awslogs-stream-prefix = "shop" }
    }
  }
}

resource "aws_ecs_task_definition" "shop" {
  family                   = "shop"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "512"
  memory                   = "1024"
  execution_role_arn       = var.execution_role_arn
  task_role_arn            = aws_iam_role.shop.arn
  container_definitions    = jsonencode([local.shop, local.pontoon])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  volume {
    name = "state"
    efs_volume_configuration {
      file_system_id     = aws_efs_file_system.state.id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = aws_efs_access_point.state.id
        iam             = "ENABLED"
      }
    }
  }
}

resource "aws_ecs_service" "shop" {
  name            = "shop"
  cluster         = var.cluster
  task_definition = aws_ecs_task_definition.shop.arn
  launch_type     = "FARGATE"
  # The state file belongs to one process: one task, and the old one ends before the new one starts.
  desired_count                      = 1
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = var.security_group_ids
  }

  depends_on = [aws_efs_mount_target.state, aws_iam_role_policy.state_file]
}

resource "aws_efs_file_system" "state" {
  encrypted = true
}

resource "aws_efs_mount_target" "state" {
  for_each        = toset(var.subnet_ids)
  file_system_id  = aws_efs_file_system.state.id
  subnet_id       = each.value
  security_groups = var.file_system_security_group_ids
}

resource "aws_efs_access_point" "state" {
  file_system_id = aws_efs_file_system.state.id

  posix_user {
    uid = 65532
    gid = 65532
  }

  root_directory {
    path = "/shop"
    creation_info {
      owner_uid   = 65532
      owner_gid   = 65532
      permissions = "0700"
    }
  }
}

resource "aws_iam_role" "shop" {
  name = "shop"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "state_file" {
  role = aws_iam_role.shop.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
      Resource  = aws_efs_file_system.state.arn
      Condition = { StringEquals = { "elasticfilesystem:AccessPointArn" = aws_efs_access_point.state.arn } }
    }]
  })
}
